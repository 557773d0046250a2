"""Where a volume may differ from its snapshots, as the filesystem knows it.

An inode that was changed tells it by the generation of its item, whatever happened to the times of the file. A
name that came or went has changed its directory, so the listings of changed directories tell the rest. `btrfs send
--no-data` finds the same by comparing both trees, but needs a snapshot of the live side and a program, and speaks
of paths that exist on neither side (orphans).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from snapbreaker.files.live import LiveTree
from snapbreaker.linux import btrfs
from snapbreaker.linux.btrfs_search import Changed, TooManyPathsError, changed_inodes, names_in, paths_of
from snapbreaker.linux.writeback import syncfs
from snapbreaker.parallel import in_parallel, part, processes_for


class Since(NamedTuple):
    """A subvolume when it was snapshotted: its uuid, and the generation in which that was."""

    origin: str
    generation: int


def candidates(
    old: LiveTree, live: LiveTree, inside: bytes, subvolumes: Mapping[bytes, Since]
) -> set[bytes] | None:
    """Paths at which the two may differ; None where that cannot be told. ``inside`` is where the volume's root
    lies in its subvolume, ``subvolumes`` are those of the snapshots by path.
    """
    changed: dict[bytes, bool] = {}
    try:
        syncfs(live.root_fd)
        for path, since in subvolumes.items():
            changed[path] = True
            if path:
                changed |= _in_nested(live, path, since)
            elif btrfs.subvolume_info(live.root_fd).uuid == since.origin:
                changed |= _changed(live.root_fd, since.generation, b"", inside)
            else:
                return None
        directories = sorted(path for path, is_directory in changed.items() if is_directory)
        processes = processes_for(len(directories))
        names = in_parallel(
            processes,
            lambda number: [_other_names(old, live, path) for path in part(directories, number, processes)],
            again=True,
        )
    except (OSError, TooManyPathsError):
        return None
    return set(changed).union(*(found for each in names for found in each))


def is_another(live: LiveTree, path: bytes, since: Since) -> bool:
    """Whether the subvolume at ``path`` is not the one that was snapshotted. Raises OSError."""
    entry = live.lookup(path)
    if entry is None or not (entry.subvolume or not path):
        return False
    fd = live.open_entry(entry)
    try:
        return btrfs.subvolume_info(fd).uuid != since.origin
    finally:
        os.close(fd)


def _in_nested(live: LiveTree, path: bytes, since: Since) -> dict[bytes, bool]:
    """Nothing for one that is gone: then all of it is compared, for its path is."""
    entry = live.lookup(path)
    if entry is None or not entry.subvolume:
        return {}
    fd = live.open_entry(entry)
    try:
        if btrfs.subvolume_info(fd).uuid != since.origin:
            raise OSError(errno.ESTALE, "another subvolume")
        return _changed(fd, since.generation, path, b"")
    finally:
        os.close(fd)


def _changed(fd: int, generation: int, path: bytes, inside: bytes) -> dict[bytes, bool]:
    """The paths of what has changed in one subvolume, and whether each is a directory."""
    found = {}
    above = inside + b"/" if inside else b""
    below = path + b"/" if path else b""
    names = _Names(fd)
    for changed in changed_inodes(fd, generation):
        for name in names.of(changed):
            if name == inside:
                found[path] = stat.S_ISDIR(changed.mode)
            elif name.startswith(above):
                found[below + name[len(above) :]] = stat.S_ISDIR(changed.mode)
    return found


class _Names:
    """The paths of inodes from the top of the subvolume of ``fd``."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._directories = {btrfs.ROOT_INODE: b""}  # the paths, each with its slash

    def of(self, changed: Changed) -> list[bytes]:
        """All of them, none when it was deleted since: then its directory has changed too."""
        if changed.inode == btrfs.ROOT_INODE:
            return [b""]
        with suppress(FileNotFoundError):
            if len(changed.names) == changed.links:
                return [self._directory(above) + name for above, name in changed.names]
            return paths_of(self._fd, changed.inode)
        return []

    def _directory(self, inode: int) -> bytes:
        if inode not in self._directories:
            self._directories[inode] = paths_of(self._fd, inode)[0] + b"/"
        return self._directories[inode]


def _other_names(old: LiveTree, live: LiveTree, path: bytes) -> set[bytes]:
    """Of a directory that is on both sides, the names that are not the same there."""
    then, now = old.lookup(path), live.lookup(path)
    if then is None or now is None or not then.is_dir or not now.is_dir:
        return set()
    listed = []
    for tree, entry in ((old, then), (live, now)):
        fd = tree.open_entry(entry)
        try:
            listed.append(names_in(fd).items())
        finally:
            os.close(fd)
    return {(path + b"/" if path else b"") + name for name, _ in listed[0] ^ listed[1]}
