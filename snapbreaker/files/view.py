"""What is shown of the directories that a tree is read from, and as what."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Mapping

from snapbreaker.files.entry import Entry
from snapbreaker.guard.inodes import InodeSet
from snapbreaker.linux.btrfs import ROOT_INODE, STUB_INODE

NOTHING: frozenset[bytes] = frozenset()


class View:
    """Names that are left out, directories that are read elsewhere, and how btrfs's own directories appear.

    ``left_out`` are relative paths, ``vault_name`` is left out at the root and at the root of each subvolume,
    ``mapped`` are descriptors of the directories to read instead. ``mounts`` collects the mount points met.
    ``borrowed`` are, for each vault, inodes that have one more link, there, than the tree is to show.
    """

    def __init__(
        self,
        left_out: Iterable[bytes],
        vault_name: bytes,
        mapped: Mapping[bytes, int],
        btrfs: bool,
        borrowed: Collection[InodeSet],
    ) -> None:
        self.mapped, self.btrfs, self.borrowed = dict(mapped), btrfs, borrowed
        self.mounts: set[bytes] = set()
        self._vault_name = vault_name
        self.left_out = frozenset(left_out)
        self._left_out = _by_directory(self.left_out)
        self._mapped_in = {
            directory: names - self._left_out.get(directory, NOTHING)
            for directory, names in _by_directory(self.mapped).items()
        }

    def unread(self, directory: Entry) -> frozenset[bytes]:
        """The names in ``directory`` that do not come from reading it."""
        return self.unread_in(directory.path, directory.subvolume)

    def unread_in(self, path: bytes, subvolume: bool = False) -> frozenset[bytes]:
        names = self._left_out.get(path, NOTHING) | self._mapped_in.get(path, NOTHING)
        return names | {self._vault_name} if subvolume or not path else names

    def mapped_in(self, directory: bytes) -> list[Entry]:
        """The entries of the directories that are read elsewhere and appear in this one."""
        names = self._mapped_in.get(directory, NOTHING)
        return [self.mapped_entry(directory + b"/" + name if directory else name) for name in names]

    def mapped_entry(self, path: bytes) -> Entry:
        status = os.fstat(self.mapped[path])
        return entry_of(path, status, status.st_ino == ROOT_INODE)

    def is_stub(self, entry: Entry) -> bool:
        """Whether ``entry`` is what btrfs shows in place of a subvolume that was nested in a snapshotted one."""
        return self.btrfs and entry.ino == STUB_INODE

    def judged(self, entry: Entry, parent_device: int) -> Entry | None:
        """A directory as it is shown; None, and noted, when it is a mount point."""
        if self.is_stub(entry):
            return Entry(entry.path, stat.S_IFDIR | 0o755, 0, 0, 0, 0, 0, STUB_INODE, 1, 0, entry.dev)
        if entry.dev == parent_device:
            return entry
        if self.btrfs and entry.ino == ROOT_INODE:
            return entry._replace(subvolume=True)
        self.mounts.add(entry.path)
        return None

    def vault_links(self, inode: int) -> int:
        """How many links vaults have of a file."""
        count = 0
        for vault in self.borrowed:
            if inode in vault:
                count += 1
        return count

    def own_links(self, entry: Entry) -> Entry:
        """The entry without the links that vaults have of it."""
        if entry.is_file and entry.nlink > 1 and (count := self.vault_links(entry.ino)):
            return entry._replace(nlink=entry.nlink - count)
        return entry

    def vault_among(self, path: bytes) -> list[bytes]:
        """The directories of which ``path`` lies in an entry named like the vault."""
        parts = path.split(b"/")
        return [b"/".join(parts[:index]) for index, name in enumerate(parts) if name == self._vault_name]

    def leaves_out(self, path: bytes) -> bool:
        """Whether ``path`` or a directory above it is left out by name; the vault is not looked for."""
        if b"" in self._left_out.get(b"", NOTHING):
            return True
        directory = b""
        for name in path.split(b"/") if path else ():
            if name in self._left_out.get(directory, NOTHING):
                return True
            directory = directory + b"/" + name if directory else name
        return False


def entry_of(path: bytes, status: os.stat_result, subvolume: bool = False) -> Entry:
    return Entry(
        path,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        status.st_nlink,
        status.st_rdev,
        status.st_dev,
        subvolume,
    )


def _by_directory(paths: Iterable[bytes]) -> dict[bytes, frozenset[bytes]]:
    """The names of ``paths`` for each directory that holds some; the root is the name ``b""`` in itself."""
    names: dict[bytes, frozenset[bytes]] = {}
    for path in paths:
        directory, _, name = path.rpartition(b"/")
        names[directory] = names.get(directory, NOTHING) | {name}
    return names
