"""Opening files so that no symbolic link, ``..`` or mount can lead out of a directory (openat2(2), Linux 5.6)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterator

from snapbreaker.linux.libc import failure, system_call

# include/uapi/linux/openat2.h
_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS

_OPEN_HOW = struct.Struct("=QQQ")
_PATH_MAX = 4096  # with the final NUL, include/uapi/linux/limits.h

_openat2 = system_call("openat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)


def _openat2_works() -> bool:
    how = _OPEN_HOW.pack(os.O_PATH | os.O_CLOEXEC, 0, 0)
    fd = _openat2(-100, b"/", how, _OPEN_HOW.size)  # -100 is AT_FDCWD
    if fd >= 0:
        os.close(fd)
    return fd >= 0


# Tried, not told by version: old container runtimes answer EPERM through seccomp.
HAVE_OPENAT2 = _openat2_works()


def open_beneath(dir_fd: int, path: bytes, flags: int, mode: int = 0, *, one_mount: bool = False) -> int:
    """Open ``path`` below the directory ``dir_fd`` and return a close-on-exec descriptor.

    ``b""`` is the directory itself. No component may be a symbolic link (ELOOP or ENOTDIR) and none may lead out
    (EXDEV); with ``one_mount`` none may be a mount point either (EXDEV), while btrfs subvolumes are passed. A last
    component that is a symbolic link opens only with O_PATH and O_NOFOLLOW. The path may be longer than PATH_MAX.
    """
    if len(path) < _PATH_MAX:
        return _open(dir_fd, path or b".", flags, mode, one_mount)
    with _stepped(dir_fd, path, one_mount) as (parent, rest):
        return _open(parent, rest, flags, mode, one_mount)


@contextlib.contextmanager
def _stepped(dir_fd: int, path: bytes, one_mount: bool) -> Iterator[tuple[int, bytes]]:
    """A descriptor of an inner directory and the rest of ``path`` seen from it, shorter than PATH_MAX."""
    parent = dir_fd
    try:
        while len(path) >= _PATH_MAX:
            cut = path.rfind(b"/", 0, _PATH_MAX)
            if cut <= 0:
                raise failure("openat2", path, errno.ENAMETOOLONG)
            inner = _open(parent, path[:cut], os.O_PATH | os.O_DIRECTORY, 0, one_mount)
            if parent != dir_fd:
                os.close(parent)
            parent, path = inner, path[cut + 1 :]
        yield parent, path
    finally:
        if parent != dir_fd:
            os.close(parent)


def _open(dir_fd: int, path: bytes, flags: int, mode: int, one_mount: bool) -> int:
    if not HAVE_OPENAT2:
        return open_by_component(dir_fd, path, flags, mode, one_mount=one_mount)
    resolve = _RESOLVE | _RESOLVE_NO_XDEV if one_mount else _RESOLVE
    fd = _openat2(dir_fd, path, _OPEN_HOW.pack(flags | os.O_CLOEXEC, mode, resolve), _OPEN_HOW.size)
    if fd < 0:
        raise failure("openat2", path)
    return fd


def open_by_component(dir_fd: int, path: bytes, flags: int, mode: int = 0, *, one_mount: bool = False) -> int:
    """What ``open_beneath`` does where the kernel has no openat2: one open(2) a component.

    ``one_mount`` is judged by st_dev here, so a bind mount from the same filesystem is not noticed.
    """
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if path.startswith(b"/") or b".." in names:
        raise failure("openat", path, errno.EXDEV)
    parent = dir_fd
    try:
        for name in names[:-1]:
            inner = _open_one(parent, name, os.O_PATH | os.O_DIRECTORY, 0, path, one_mount)
            if parent != dir_fd:
                os.close(parent)
            parent = inner
        return _open_one(parent, names[-1] if names else b".", flags, mode, path, one_mount)
    finally:
        if parent != dir_fd:
            os.close(parent)


def _open_one(dir_fd: int, name: bytes, flags: int, mode: int, path: bytes, one_mount: bool) -> int:
    try:
        fd = os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=dir_fd)
    except OSError as error:
        raise failure("openat", path, error.errno) from None
    status = os.fstat(fd)
    refused = 0
    if stat.S_ISLNK(status.st_mode) and not flags & os.O_NOFOLLOW:
        refused = errno.ELOOP
    elif one_mount and status.st_dev != os.fstat(dir_fd).st_dev and status.st_ino != 256:
        refused = errno.EXDEV
    if refused:
        os.close(fd)
        raise failure("openat", path, refused)
    return fd


def exists_in(directory: int, name: bytes) -> bool:
    """Whether an open directory has ``name``, whatever that is. Raises OSError when it cannot be told."""
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
