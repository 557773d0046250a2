"""The vault of hard links: each file's inode under its own number.

A link keeps the content of a file that is deleted or replaced, and costs a directory entry instead of a copy.
Making it moves the file's ctime and its link count (link(2)); what others make of that is in docs/filecopy.md.
Inodes whose numbers are near each other share a directory: in a single one for all each link would take longer.
"""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Sequence
from contextlib import suppress

from snapbreaker.files.remove import unlink
from snapbreaker.guard.inodes import InodeSet
from snapbreaker.linux.inode import link_fd
from snapbreaker.parallel import in_parallel, part, processes_for

LINKS = "links"  # in the vault

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC
# Immutable or append-only files, too many links, another mount or project, no name left or no CAP_DAC_READ_SEARCH:
# such a file is copied.
_CANNOT = frozenset({errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOENT})
_SHIFT = 7  # 128 numbers share a directory


class LinkVault:
    """Made empty by the first use of ``create``. ``inodes`` are those that it holds, as far as it was told."""

    def __init__(self, vault: str, create: bool = False) -> None:
        path = os.path.join(vault, LINKS)
        if create:
            os.mkdir(path, 0o700)
        self.fd = os.open(path, _DIRECTORY)
        self.inodes = InodeSet()
        self._made = -1  # the directory that was made last

    def add(self, fd: int, inode: int) -> bool:
        """Link an open file; False where that cannot be. Raises OSError."""
        directory = inode >> _SHIFT
        if directory != self._made:
            with suppress(FileExistsError):
                os.mkdir(b"%x" % directory, 0o700, dir_fd=self.fd)
            self._made = directory
        try:
            link_fd(fd, self.fd, name_of(inode))
        except FileExistsError:
            pass  # another name of it came before
        except OSError as error:
            if error.errno in _CANNOT:
                return False
            raise
        self.inodes.add(inode)
        return True

    def remove_stranger(self, inode: int) -> None:
        """Where the file that was linked under this number is another one."""
        with suppress(FileNotFoundError):
            if os.stat(name_of(inode), dir_fd=self.fd, follow_symlinks=False).st_ino != inode:
                os.unlink(name_of(inode), dir_fd=self.fd)
                self.inodes.discard(inode)

    def load(self) -> InodeSet:
        """Learn from the directories what it holds."""
        for directory in os.listdir(self.fd):
            fd = os.open(directory, _DIRECTORY, dir_fd=self.fd)
            try:
                self.inodes.add_near(int(directory, 16) << _SHIFT, map(int, os.listdir(fd)))
            finally:
                os.close(fd)
        return self.inodes

    def open(self, inode: int) -> int:
        """A descriptor for reading. Raises OSError."""
        return os.open(name_of(inode), _FILE, dir_fd=self.fd)

    def has(self, inode: int) -> bool:
        try:
            os.stat(name_of(inode), dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def name_of(inode: int) -> bytes:
    """Where its link is, relative to the vault's directory of links."""
    return b"%x/%d" % (inode >> _SHIFT, inode)


def links_of_all(vault_base: str, but: str = "") -> list[InodeSet]:
    """What each vault of a volume holds, except ``but``."""
    found = []
    for path in glob.glob(f"{glob.escape(vault_base)}/*/*/{LINKS}"):
        vault = os.path.dirname(path)
        if vault != but:
            links = LinkVault(vault)
            try:
                found.append(links.load())
            finally:
                links.close()
    return found


def remove_links(vault: str) -> None:
    """Remove all links of a vault, by several processes. Idempotent. Raises OSError when one stays: all others are
    gone then.
    """
    path = os.path.join(vault, LINKS)
    try:
        top = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        directories = sorted(os.listdir(top))
        processes = processes_for(len(directories) << _SHIFT)
        failures = in_parallel(
            processes, lambda number: _remove(top, part(directories, number, processes)), again=True
        )
    finally:
        os.close(top)
    for failure in filter(None, failures):
        raise failure
    with suppress(FileNotFoundError):
        os.rmdir(path)


def _remove(top: int, directories: Sequence[str]) -> OSError | None:
    """The first failure: an active swap file, for one, cannot be unlinked. Files that are immutable meanwhile can,
    and stay that under their own names.
    """
    failure: OSError | None = None
    for directory in directories:
        with suppress(FileNotFoundError):
            fd = os.open(directory, _DIRECTORY, dir_fd=top)
            try:
                for name in os.listdir(fd):
                    try:
                        os.unlink(name, dir_fd=fd)
                    except FileNotFoundError:
                        pass
                    except PermissionError:
                        failure = _unlink_locked(fd, name) or failure
                if not os.listdir(fd):
                    os.rmdir(directory, dir_fd=top)
            finally:
                os.close(fd)
    return failure


def _unlink_locked(fd: int, name: str) -> OSError | None:
    try:
        unlink(fd, os.fsencode(name))
    except OSError as error:
        return error
    return None
