"""What an inode carries beyond stat(2): flags and project id; renaming with flags; syncing one filesystem."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import struct
import sys

from snapbreaker.linux.ioctl import ior, iow
from snapbreaker.linux.libc import check, failure, function

# include/uapi/linux/fs.h
_LONG = struct.calcsize("l")
_GETFLAGS = ior(ord("f"), 1, _LONG)
_SETFLAGS = iow(ord("f"), 2, _LONG)
_FSXATTR = struct.Struct("=IIIII8x")  # xflags, extsize, nextents, projid, cowextsize
_INT = struct.Struct("=I")
_flags_buffer, _fsxattr_buffer = bytearray(_LONG), bytearray(_FSXATTR.size)
_GETVERSION = ior(ord("v"), 1, _LONG)
_FSGETXATTR = ior(ord("X"), 31, _FSXATTR.size)
_FSSETXATTR = iow(ord("X"), 32, _FSXATTR.size)

FLAG_IMMUTABLE = 0x10
FLAG_APPEND = 0x20
FLAG_NOCOW = 0x800000
# The flags of ioctl_iflags(2) that a user may set. Left out are those that the kernel keeps for itself and changes
# unasked: hash-indexed directories (INDEX), extents, huge files, inline data, encryption and verity.
SETTABLE_FLAGS = (
    0x1  # SECRM
    | 0x2  # UNRM
    | 0x4  # COMPR
    | 0x8  # SYNC
    | FLAG_IMMUTABLE
    | FLAG_APPEND
    | 0x40  # NODUMP
    | 0x80  # NOATIME
    | 0x400  # NOCOMP
    | 0x4000  # JOURNAL_DATA
    | 0x8000  # NOTAIL
    | 0x10000  # DIRSYNC
    | 0x20000  # TOPDIR
    | FLAG_NOCOW
    | 0x2000000  # DAX
    | 0x20000000  # PROJINHERIT
    | 0x40000000  # CASEFOLD
)

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

# What filesystems without inode flags answer.
_UNSUPPORTED = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})

_renameat2 = function("renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_AT_EMPTY_PATH = 0x1000
_linkat = function("linkat", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int)


def get_flags(fd: int) -> int:
    """The inode flags of an open file or directory that can be set again; 0 where the filesystem has none."""
    return _raw_flags(fd) & SETTABLE_FLAGS


def set_flags(fd: int, flags: int) -> None:
    """Make the settable inode flags ``flags``; all others stay. Does nothing when they already are.

    Raises OSError: EPERM without CAP_LINUX_IMMUTABLE, ENOTTY where the filesystem has no flags, EINVAL for one
    that it does not know or that cannot be set any more (NOCOW of a file that has data).
    """
    present = _raw_flags(fd)
    if present & SETTABLE_FLAGS == flags & SETTABLE_FLAGS:
        return
    wanted = present & ~SETTABLE_FLAGS | flags & SETTABLE_FLAGS
    fcntl.ioctl(fd, _SETFLAGS, struct.pack("l", wanted))


def _raw_flags(fd: int) -> int:
    return _asked(fd, _GETFLAGS)


def _asked(fd: int, request: int) -> int:
    """The answer to a request for one number; 0 where the filesystem does not know it."""
    # The kernel writes an int, whatever the request number says (ioctl_iflags(2)).
    buffer = bytearray(_LONG)
    try:
        fcntl.ioctl(fd, request, buffer)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return 0
        raise
    return int.from_bytes(buffer[:4], sys.byteorder)


def get_project(fd: int) -> int:
    """The project id (quota) of an open file or directory; 0 where the filesystem has none."""
    fields = _fsxattr(fd)
    return fields[3] if fields else 0


def set_project(fd: int, project: int) -> None:
    """Set the project id. Raises OSError: EOPNOTSUPP on ext4 without the project feature, ENOTTY without any."""
    fields = _fsxattr(fd)
    if fields is None:
        if project:
            raise failure("FS_IOC_FSSETXATTR", code=errno.ENOTTY)
        return
    if fields[3] != project:
        fields[3] = project
        fcntl.ioctl(fd, _FSSETXATTR, _FSXATTR.pack(*fields))


def _fsxattr(fd: int) -> list[int] | None:
    buffer = bytearray(_FSXATTR.size)
    try:
        fcntl.ioctl(fd, _FSGETXATTR, buffer)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return None
        raise
    return list(_FSXATTR.unpack(buffer))


def get_flags_and_project(fd: int, projects: bool = True) -> tuple[int, int]:
    """Both ``get_flags`` and ``get_project``, in a third of the time; without ``projects`` there are none to be
    asked for. Not for several threads.
    """
    try:
        fcntl.ioctl(fd, _GETFLAGS, _flags_buffer)
        if not projects:
            return _INT.unpack_from(_flags_buffer)[0] & SETTABLE_FLAGS, 0
        fcntl.ioctl(fd, _FSGETXATTR, _fsxattr_buffer)
    except OSError:
        return get_flags(fd), get_project(fd)
    return _INT.unpack_from(_flags_buffer)[0] & SETTABLE_FLAGS, _INT.unpack_from(_fsxattr_buffer, 12)[0]


def get_generation(fd: int) -> int:
    """What tells an inode from an earlier one with the same number; 0 where the filesystem does not say.

    FS_IOC_GETVERSION: ext4, xfs and btrfs have it. Raises OSError.
    """
    return _asked(fd, _GETVERSION)


def renameat2(old_dir: int, old: bytes, new_dir: int, new: bytes, flags: int = 0) -> None:
    """rename(2) between directories, with RENAME_EXCHANGE or RENAME_NOREPLACE (rename(2), Linux 3.15)."""
    check(_renameat2(old_dir, old, new_dir, new, flags), "renameat2", new)


def link_fd(fd: int, directory: int, name: bytes) -> None:
    """Another name for an open file: linkat(2) with AT_EMPTY_PATH, which needs CAP_DAC_READ_SEARCH. Raises
    OSError: ENOENT without it, or where the file has no name any more.
    """
    check(_linkat(fd, b"", directory, name, _AT_EMPTY_PATH), "linkat", name)
