"""Mounts that nobody sees: made by fsopen(2), fsconfig(2) and fsmount(2) and never attached to a directory; and
filesystems that become read-only for all who have mounted them (fspick(2)).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from snapbreaker.linux.libc import check, system_call

# <linux/mount.h>
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_FSCONFIG_CMD_RECONFIGURE = 7
_FSPICK_CLOEXEC = 1
_AT_FDCWD = -100
_MOUNT_ATTR_NOSUID_NODEV_NOEXEC_NOATIME = 0x2 | 0x4 | 0x8 | 0x10

_fsopen = system_call("fsopen", ctypes.c_char_p, ctypes.c_uint)
_fsconfig = system_call("fsconfig", ctypes.c_int, ctypes.c_uint, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int)
_fspick = system_call("fspick", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_fsmount = system_call("fsmount", ctypes.c_int, ctypes.c_uint, ctypes.c_uint)


@contextmanager
def detached_mount(
    fstype: str, source: str, options: Mapping[str, str], flags: Sequence[str] = ()
) -> Iterator[int]:
    """A directory descriptor (open for reading) of the top of a mount of its own, gone at the end of the block.

    ``flags`` are options without a value; ZFS wants ``ro`` for what is so. A filesystem that is mounted already is
    shared, not mounted twice. Not followed: device nodes, setuid bits.
    Raises OSError; ENOSYS means Linux before 5.2.
    """
    context = check(_fsopen(os.fsencode(fstype), _FSOPEN_CLOEXEC), "fsopen", fstype)
    try:
        for key, value in {"source": source, **options}.items():
            result = _fsconfig(context, _FSCONFIG_SET_STRING, os.fsencode(key), os.fsencode(value), 0)
            check(result, f"fsconfig({key})", source)
        for flag in flags:
            check(_fsconfig(context, _FSCONFIG_SET_FLAG, os.fsencode(flag), None, 0), f"fsconfig({flag})", source)
        check(_fsconfig(context, _FSCONFIG_CMD_CREATE, None, None, 0), "fsconfig(create)", source)
        mount = check(_fsmount(context, _FSMOUNT_CLOEXEC, _MOUNT_ATTR_NOSUID_NODEV_NOEXEC_NOATIME), "fsmount")
    except OSError as error:
        raise _explained(error, context) from None
    finally:
        os.close(context)
    try:
        top = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
        try:
            yield top
        finally:
            os.close(top)
    finally:
        os.close(mount)


def set_read_only(point: str, read_only: bool) -> None:
    """Of the filesystem that is mounted at ``point``, not only of that mount: its other options stay as they are.

    Raises OSError; EBUSY where a file of it is open for writing, or deleted and still open, in any namespace
    (sb_prepare_remount_readonly). ENOSYS means Linux before 5.2.
    """
    context = check(_fspick(_AT_FDCWD, os.fsencode(point), _FSPICK_CLOEXEC), "fspick", point)
    try:
        flag = b"ro" if read_only else b"rw"
        check(_fsconfig(context, _FSCONFIG_SET_FLAG, flag, None, 0), "fsconfig", point)
        check(_fsconfig(context, _FSCONFIG_CMD_RECONFIGURE, None, None, 0), "fsconfig(reconfigure)", point)
    finally:
        os.close(context)


def _explained(error: OSError, context: int) -> OSError:
    """The error with what the filesystem itself has to say, which it leaves in the context (fsopen(2))."""
    try:
        told = os.read(context, 1024).decode("utf-8", "replace").strip()
    except OSError:  # ENODATA: nothing
        return error
    return OSError(error.errno, f"{error.strerror}: {told}", error.filename)
