"""The flat vault of hard links: each file's inode under its own number.

A link keeps the content of a file that is deleted or replaced, and costs a directory entry instead of a copy.
Making it moves the file's ctime and its link count (link(2)); what others make of that is in docs/filecopy.md.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from snapbreaker.guard.inodes import InodeSet

LINKS = "links"  # in the vault

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Immutable or append-only files, too many links, another mount or project: such a file is copied.
_CANNOT = frozenset({errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP})


class LinkVault:
    """Made empty by the first use of ``create``. ``inodes`` are those that it holds."""

    def __init__(self, vault: str, create: bool = False) -> None:
        path = os.path.join(vault, LINKS)
        if create:
            os.mkdir(path, 0o700)
        self.fd = os.open(path, _DIRECTORY)
        self.inodes = InodeSet()

    def add(self, directory: int, name: bytes, inode: int) -> bool:
        """Link the file that an open directory holds; False where that cannot be. Raises OSError."""
        try:
            os.link(name, b"%d" % inode, src_dir_fd=directory, dst_dir_fd=self.fd, follow_symlinks=False)
        except FileExistsError:
            pass  # another name of it came before
        except OSError as error:
            if error.errno in _CANNOT:
                return False
            raise
        self.inodes.add(inode)
        return True

    def remove_strangers(self) -> None:
        """Files that were replaced between the look at them and the link lie under a number that is not theirs."""
        for name, inode in self._entries():
            if int(name) != inode:
                os.unlink(name, dir_fd=self.fd)
                self.inodes.discard(int(name))

    def load(self) -> InodeSet:
        """Learn from the directory what it holds."""
        for _, inode in self._entries():
            self.inodes.add(inode)
        return self.inodes

    def _entries(self) -> list[tuple[str, int]]:
        with os.scandir(self.fd) as entries:
            return [(entry.name, entry.inode()) for entry in entries]

    def open(self, inode: int) -> int:
        """A descriptor for reading. Raises OSError."""
        return os.open(b"%d" % inode, os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC, dir_fd=self.fd)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def remove_links(vault: str) -> None:
    """Remove all links of a vault. Idempotent."""
    try:
        fd = os.open(os.path.join(vault, LINKS), _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        for name in os.listdir(fd):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)
    with suppress(FileNotFoundError):
        os.rmdir(os.path.join(vault, LINKS))
