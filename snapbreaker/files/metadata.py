"""Making an inode's metadata what it was.

The order matters: chown(2) clears setuid bits and file capabilities, chmod(2) changes an ACL's mask, and an
immutable file refuses everything. So: owner, mode, xattrs, project, flags, mtime, and what locks the file last.
"""

from __future__ import annotations

import errno
import os
import stat

from snapbreaker.files import ops
from snapbreaker.files.entry import Details, Entry
from snapbreaker.linux import btrfs
from snapbreaker.linux.inode import FLAG_APPEND, FLAG_IMMUTABLE, FLAG_NOCOW, get_flags, get_project
from snapbreaker.linux.xattr import Xattrs, read_xattrs, read_xattrs_at

LOCKS = FLAG_IMMUTABLE | FLAG_APPEND


def settle(fd: int, entry: Entry, details: Details, *, locked: bool = True) -> None:
    """Give the open file or directory ``fd`` the metadata of ``entry``; only what differs is set.

    Without ``locked`` the flags that forbid further changes stay cleared. Raises OSError.
    """
    if entry.subvolume:
        ops.set_subvolume_read_only(fd, False)
    flags = get_flags(fd)
    if flags & LOCKS:
        flags &= ~LOCKS
        ops.set_flags(fd, flags)
    _settle_owner(fd, entry)
    _settle_xattrs(fd, details.xattrs)
    if stat.S_IMODE(os.fstat(fd).st_mode) != stat.S_IMODE(entry.mode):  # an ACL can take the setgid bit along
        ops.chmod(fd, entry.mode)
    if get_project(fd) != details.project:
        ops.set_project(fd, details.project)
    if flags != details.flags & ~LOCKS:
        ops.set_flags(fd, details.flags & ~LOCKS)
    settle_mtime(fd, entry.mtime_ns)
    if locked:
        lock(fd, entry, details)


def lock(fd: int, entry: Entry, details: Details) -> None:
    """Put the flags back that forbid changes, and a subvolume's read-only property."""
    if details.flags & LOCKS:
        ops.set_flags(fd, details.flags)
    if entry.subvolume:
        ops.set_subvolume_read_only(fd, details.read_only)


def settle_mtime(fd: int, mtime_ns: int) -> None:
    now = os.fstat(fd)
    if now.st_mtime_ns != mtime_ns:
        ops.set_mtime(fd, mtime_ns, now.st_atime_ns)


def prepare(fd: int, details: Details) -> None:
    """What must be set while a new file is still empty (ioctl_iflags(2), FS_NOCOW_FL)."""
    if details.flags & FLAG_NOCOW:
        ops.set_flags(fd, FLAG_NOCOW)


def settle_new(fd: int, entry: Entry, details: Details) -> int:
    """Metadata of a file that we have just made in a slot, without project. No locks yet. Its inode number."""
    inode = _settle_owner(fd, entry)
    _settle_xattrs(fd, details.xattrs)
    if details.xattrs and stat.S_IMODE(os.fstat(fd).st_mode) != stat.S_IMODE(entry.mode):
        ops.chmod(fd, entry.mode)
    if details.project:
        ops.set_project(fd, details.project)
    if details.flags & ~LOCKS:
        ops.set_flags(fd, details.flags & ~LOCKS)
    ops.set_mtime(fd, entry.mtime_ns)
    return inode


def settle_special(directory: int, name: bytes, entry: Entry, details: Details) -> None:
    """Metadata of a symbolic link, fifo, socket or device in a slot. Never for a name in the live tree."""
    if entry.uid or entry.gid:
        ops.chown_name(directory, name, entry.uid, entry.gid)
    if not entry.is_link:
        ops.chmod_name(directory, name, entry.mode)
    present = dict(read_xattrs_at(directory, name))
    for attribute in present.keys() - dict(details.xattrs).keys():
        ops.remove_xattr_name(directory, name, attribute)
    for attribute, value in details.xattrs:
        if present.get(attribute) != value:
            ops.set_xattr_name(directory, name, attribute, value)
    ops.set_mtime_name(directory, name, entry.mtime_ns)


def unlock(fd: int) -> tuple[int, bool]:
    """Clear what forbids changes to an open file or directory: (flags that were set, read-only subvolume)."""
    flags = get_flags(fd)
    if flags & LOCKS:
        ops.set_flags(fd, flags & ~LOCKS)
    read_only = btrfs.is_subvolume(fd) and btrfs.is_read_only(fd)
    if read_only:
        ops.set_subvolume_read_only(fd, False)
    return flags & LOCKS, read_only


def locks_of(fd: int) -> tuple[int, bool]:
    """What ``unlock`` would clear."""
    return get_flags(fd) & LOCKS, btrfs.is_subvolume(fd) and btrfs.is_read_only(fd)


def _settle_owner(fd: int, entry: Entry) -> int:
    now = os.fstat(fd)
    mode = stat.S_IMODE(now.st_mode)
    if (now.st_uid, now.st_gid) != (entry.uid, entry.gid):
        ops.chown(fd, entry.uid, entry.gid)
        mode = -1
    if mode != stat.S_IMODE(entry.mode):
        ops.chmod(fd, entry.mode)
    return now.st_ino


def _settle_xattrs(fd: int, wanted: Xattrs) -> None:
    present = read_xattrs(fd)
    if present == wanted:
        return
    have = dict(present)
    for name in sorted(have.keys() - dict(wanted).keys()):
        try:
            ops.remove_xattr(fd, name)
        except OSError as error:
            if error.errno != errno.ENODATA:  # xfs shows an ACL under two names, and both go at once
                raise
    for name, value in wanted:
        if have.get(name) != value:
            ops.set_xattr(fd, name, value)
