"""Removing a whole tree: what ``rm -rf`` does not manage (flags, subvolumes) and must not do (cross a mount)."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from snapbreaker.files import ops
from snapbreaker.linux import btrfs
from snapbreaker.linux.inode import FLAG_APPEND, FLAG_IMMUTABLE, get_flags
from snapbreaker.linux.openat import open_beneath
from snapbreaker.progress import Progress, silent

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_TOLD_EVERY = 1024
_LOCKS = FLAG_IMMUTABLE | FLAG_APPEND


class _Count:
    """How many names were removed, and who is told."""

    def __init__(self) -> None:
        self.removed = 0
        self.progress: Progress = silent

    def one(self) -> None:
        self.removed += 1
        if self.removed % _TOLD_EVERY == 0:
            self.progress("remove", self.removed)


_count = _Count()


@contextmanager
def removal_told(progress: Progress) -> Iterator[None]:
    """Whatever ``remove_tree`` removes meanwhile is told to ``progress``."""
    _count.removed, _count.progress = 0, progress
    try:
        yield
    finally:
        _count.progress = silent


def remove_tree(parent_fd: int, name: bytes) -> None:
    """Remove ``name`` in the directory ``parent_fd`` with all below it; nothing there is fine.

    Works at any depth with a bounded number of descriptors, clears immutable and append-only flags, deletes
    btrfs subvolumes (read-only ones too). Raises OSError: EBUSY for a mount point, which is never entered.
    """
    if _remove_shallow(parent_fd, name):
        return
    base = os.dup(parent_fd)
    try:
        _remove_below(base, name)
    finally:
        os.close(base)
    _remove_directory(parent_fd, name)


def _remove_below(base: int, name: bytes) -> None:
    """Empty the directory ``name``. One descriptor at a time: up again by ``..``, checked to be where we were."""
    current = _enter(base, name)
    above: list[tuple[bytes, tuple[int, int]]] = []
    try:
        todo = [_remove_entries(current)]
        while True:
            if todo[-1]:
                child = todo[-1][-1]
                above.append((child, _identity(current)))
                inner = _enter(current, child)
                os.close(current)
                current = inner
                todo.append(_remove_entries(current))
                continue
            todo.pop()
            if not todo:
                return
            done, identity = above.pop()
            outer = os.open("..", _DIRECTORY, dir_fd=current)
            os.close(current)
            current = outer
            if _identity(current) != identity:
                raise OSError(errno.ESTALE, "directory moved while it was removed", done)
            _remove_directory(current, done)
            todo[-1].pop()
    finally:
        os.close(current)


def _remove_entries(directory: int) -> list[bytes]:
    """Remove everything but directories that hold something; those are returned."""
    with os.scandir(directory) as entries:
        names = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
    full = []
    for name, is_directory in names:
        if not is_directory:
            _unlink(directory, name)
        elif not _remove_shallow(directory, name):
            full.append(name)
    return full


def _remove_shallow(directory: int, name: bytes) -> bool:
    """Remove what takes one call; false for a directory that must be emptied first.

    rmdir(2) answers EBUSY for a mount point before it looks for entries, which is how one is told from a full
    directory (vfs_rmdir in fs/namei.c).
    """
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return True
    if not stat.S_ISDIR(status.st_mode):
        _unlink(directory, name)
        return True
    try:
        _remove_directory(directory, name)
    except OSError as error:
        read_only = error.errno == errno.EROFS and status.st_ino == btrfs.ROOT_INODE
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) and not read_only:
            raise
        return status.st_ino == btrfs.ROOT_INODE and _delete_subvolume(directory, name)
    return True


def _delete_subvolume(directory: int, name: bytes) -> bool:
    fd = _enter(directory, name)
    try:
        if not btrfs.is_subvolume(fd):
            return False
        try:
            ops.delete_subvolume(directory, name)
        except OSError as error:
            # Others are nested in it, or it cannot be deleted at once: by its entries then.
            if error.errno not in (errno.ENOTEMPTY, errno.EPERM):
                raise
            ops.set_subvolume_read_only(fd, False)
            return False
        return True
    finally:
        os.close(fd)


def _unlink(directory: int, name: bytes) -> None:
    _count.one()
    with suppress(FileNotFoundError):
        unlink(directory, name)


def _remove_directory(directory: int, name: bytes) -> None:
    try:
        ops.rmdir(directory, name)
    except PermissionError:
        _clear_locks(directory)
        os.close(_enter(directory, name))
        ops.rmdir(directory, name)


def unlink(directory: int, name: bytes) -> None:
    """unlink(2), also of an immutable or append-only file, which stays that where it has another name. Raises
    OSError.
    """
    try:
        ops.unlink(directory, name)
    except PermissionError:
        _clear_locks(directory)
        if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            ops.unlink(directory, name)  # nothing else has flags, and to open a device may act
            return
        fd = open_beneath(directory, name, _FILE, one_mount=True)
        try:
            flags = _clear_locks(fd)
            try:
                ops.unlink(directory, name)
            finally:
                if flags & _LOCKS and os.fstat(fd).st_nlink:
                    ops.set_flags(fd, flags)
        finally:
            os.close(fd)


def _clear_locks(fd: int) -> int:
    """The flags that there were."""
    flags = get_flags(fd)
    if flags & _LOCKS:
        ops.set_flags(fd, flags & ~_LOCKS)
    return flags


def _enter(directory: int, name: bytes) -> int:
    """Open a directory of the tree; what it holds can be removed afterwards."""
    fd = open_beneath(directory, name, _DIRECTORY, one_mount=True)
    try:
        _clear_locks(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
