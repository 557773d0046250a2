"""Who has files of a volume open for writing, or mapped shared and writable."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from snapbreaker.backend import Volume
from snapbreaker.dataclass import dataclass
from snapbreaker.files.policy import PathClass, Policy
from snapbreaker.linux.mountinfo import Mount, read_mounts
from snapbreaker.linux.process import Identity, Process, pids, process
from snapbreaker.linux.served import Served, served_to
from snapbreaker.paths import below, is_below, relative

# A line of /proc/PID/maps whose permissions say writable and shared; the first field names it in map_files.
_SHARED_WRITABLE = re.compile(rb"^([0-9a-f]+-[0-9a-f]+) .w.s \S+ \S+ [1-9]", re.MULTILINE)


class Inode(NamedTuple):
    device: int
    number: int


Locate = Callable[[Collection[Inode]], Mapping[Inode, bytes]]
"""Finds inodes by a walk of the volume: the relative path of each that is in scope, the others left out."""


@dataclass(frozen=True, slots=True)
class Writer:
    """One process. ``paths`` are relative to the volume's root, ``mapped`` those of them that it has mapped."""

    identity: Identity
    comm: str
    paths: tuple[bytes, ...]
    mapped: tuple[bytes, ...]

    @property
    def pid(self) -> int:
        return self.identity.pid

    def __str__(self) -> str:
        return f"{self.comm} (pid {self.pid})"


class OpenFile(NamedTuple):
    """A regular file that a process can write: by which text the kernel names it, and which it is.

    ``link`` is a link of /proc that leads to it, as long as the process has it.
    """

    text: bytes
    inode: Inode
    links: int
    mapped: bool
    link: bytes


class Scan:
    """Looks for writers of one volume, as often as wanted; what was once located by a walk is remembered.

    A file counts when its class in ``policy`` is *restore*: of what is kept, and of logs that only grow, nobody
    needs to hold still. ``devices`` are the st_dev of the volume's files (several on btrfs). Seen are descriptors
    and mappings of every process that /proc shows; what else the kernel itself may write (loop devices, io_uring
    files without a descriptor) is left to the comparison of each file before and after it is copied.
    """

    def __init__(self, volume: Volume, policy: Policy, locate: Locate, devices: Collection[int] = ()) -> None:
        self._volume, self._policy, self._locate = volume, policy, locate
        self._root = os.fsencode(volume.root)
        self._vault = os.fsencode(volume.vault_base)
        self._skip = [os.fsencode(path) for path in volume.skip]
        self.devices = set(devices) or {os.stat(volume.root).st_dev}
        self._located: dict[Inode, bytes | None] = {}
        self._mounts: dict[int, Sequence[Mount]] = {}
        self._inside = self._inside_filesystem()

    def __call__(self) -> list[Writer]:
        """All writers now, by pid."""
        found: list[tuple[Process, list[tuple[OpenFile, bytes | None]]]] = []
        unplaced: set[Inode] = set()
        for pid in sorted(pids()):
            owner = process(pid)
            if owner is None or owner.dead:
                continue
            placed = list(self._placed(pid))
            if placed:
                found.append((owner, placed))
                unplaced |= {file.inode for file, path in placed if path is None}
        self._look_up(unplaced - self._located.keys())
        return [writer for owner, placed in found if (writer := self._writer(owner, placed)) is not None]

    def _writer(self, owner: Process, placed: list[tuple[OpenFile, bytes | None]]) -> Writer | None:
        paths: dict[bytes, bool] = {}
        for file, known in placed:
            path = self._located[file.inode] if known is None else known
            if path is not None and self._policy.of(path) is PathClass.RESTORE:
                paths[path] = paths.get(path, False) or file.mapped
        if not paths:
            return None
        mapped = tuple(sorted(path for path, is_mapped in paths.items() if is_mapped))
        return Writer(owner.identity, owner.comm, tuple(sorted(paths)), mapped)

    def _look_up(self, inodes: Collection[Inode]) -> None:
        if inodes:
            located = self._locate(inodes)
            self._located.update((inode, located.get(inode)) for inode in inodes)

    def _placed(self, pid: int) -> Iterator[tuple[OpenFile, bytes | None]]:
        """Each file of the volume that ``pid`` may write, with its path, None when only a walk can tell."""
        for file in writable_files(pid):
            if file.inode.device in self.devices or self._is_at(file.text, file.inode):
                place = self._place(pid, file)
                if place is not _ELSEWHERE:
                    yield file, place

    def _place(self, pid: int, file: OpenFile) -> bytes | None:
        if file.links == 0:
            return _ELSEWHERE
        if self._is_vault(file.text):
            return _ELSEWHERE
        if self._is_at(file.text, file.inode):
            return self._relative(file.text)
        inside = self._translated(pid, file.text)
        if inside is not None:
            if not is_below(inside, self._inside):
                return None if file.links > 1 else _ELSEWHERE
            seen = os.fsencode(below(self._volume.root, relative(inside, self._inside)))
            if self._is_vault(seen):
                return _ELSEWHERE
            if self._is_at(seen, file.inode):
                return self._relative(seen)
        return None

    def _is_at(self, path: bytes, inode: Inode) -> bool:
        """Whether ``path`` lies in the volume and is this very file: other namespaces use the same names."""
        if not path.startswith(self._root.rstrip(b"/") + b"/"):
            return False
        if any(path == point or path.startswith(point + b"/") for point in self._skip):
            return False
        try:
            facts = os.lstat(path)
        except OSError:
            return False
        return (facts.st_dev, facts.st_ino) == inode

    def _is_vault(self, path: bytes) -> bool:
        return path.startswith(self._vault + b"/")

    def _relative(self, path: bytes) -> bytes:
        return path[len(self._root.rstrip(b"/")) + 1 :]

    def _inside_filesystem(self) -> str:
        volume = self._volume
        for mount in read_mounts():
            if mount.mountpoint == volume.mountpoint and mount.device == volume.device:
                return below(mount.root, relative(volume.root, volume.mountpoint))
        return volume.root

    def _translated(self, pid: int, text: bytes) -> str | None:
        """Where in the volume's filesystem the file lies, by the process' own mounts (containers, bind mounts)."""
        path, best = os.fsdecode(text), None
        for mount in self._mounts_of(pid):
            if is_below(path, mount.mountpoint) and (best is None or is_below(mount.mountpoint, best.mountpoint)):
                best = mount
        if best is None or best.device != self._volume.device:
            return None
        return below(best.root, relative(path, best.mountpoint))

    def _mounts_of(self, pid: int) -> Sequence[Mount]:
        try:
            namespace = os.stat(f"/proc/{pid}/ns/mnt").st_ino
            if namespace not in self._mounts:
                self._mounts[namespace] = read_mounts(f"/proc/{pid}/mountinfo")
        except OSError:
            return ()
        return self._mounts[namespace]


_ELSEWHERE = b"\0"  # no path: known not to be in the volume


def writable_files(pid: int) -> Iterator[OpenFile]:
    """Regular files behind writable descriptors and shared writable mappings, each once; none when it is gone.

    None of a filesystem that a server or a program provides: one that is gone would keep us waiting for ever.
    """
    seen: set[tuple[bytes, Inode, bool]] = set()
    for file in _all_writable(pid):
        key = (file.text, file.inode, file.mapped)
        if key not in seen:
            seen.add(key)
            yield file


def _all_writable(pid: int) -> Iterator[OpenFile]:
    served = served_to(pid)
    yield from _descriptors(f"/proc/{pid}", served)
    leader = process(pid)
    if leader is not None and leader.state == "Z":  # the leader has ended, its threads have the files
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                yield from _descriptors(f"/proc/{pid}/task/{thread}", served)
    yield from _mappings(pid, served)


def _descriptors(directory: str, served: Served) -> Iterator[OpenFile]:
    try:
        entries = os.scandir(os.fsencode(directory) + b"/fd")
    except OSError:
        return
    with entries, suppress(OSError):
        for entry in entries:
            with suppress(OSError):
                # The link's own permissions say how it was opened: proc_pid_fd(5).
                if entry.stat(follow_symlinks=False).st_mode & stat.S_IWUSR:
                    yield from _regular(entry.path, False, served)


def _mappings(pid: int, served: Served) -> Iterator[OpenFile]:
    try:
        with open(f"/proc/{pid}/maps", "rb") as maps:
            text = maps.read()
    except OSError:
        return
    for match in _SHARED_WRITABLE.finditer(text):
        # map_files, since maps shows another device number than stat(2) does on btrfs.
        with suppress(OSError):
            yield from _regular(b"/proc/%d/map_files/%s" % (pid, match[1]), True, served)


def _regular(link: bytes, mapped: bool, served: Served) -> Iterator[OpenFile]:
    text = os.readlink(link)
    if not text.startswith(b"/") or served.holds(text):
        return
    facts = os.stat(link)
    if stat.S_ISREG(facts.st_mode):
        yield OpenFile(text, Inode(facts.st_dev, facts.st_ino), facts.st_nlink, mapped, link)
