"""Extended attributes of a name in an open directory, never following a symbolic link.

Files and directories can be opened and asked by descriptor; symbolic links, fifos, sockets and devices cannot. For
them Linux 6.13 has getxattrat and its kin. Before that there are only calls that take a path: through
/proc/self/fd, and where the command has unmounted /proc, in a thread with a working directory of its own
(unshare(2), CLONE_FS), since that of the process is not ours to change.
"""

from __future__ import annotations

import ctypes
import errno
import os
import queue
import struct
import threading
from collections.abc import Callable, Iterable
from typing import Any

from snapbreaker.linux.filesystems import filesystem_type
from snapbreaker.linux.libc import check, failure, function, system_call

_AT_SYMLINK_NOFOLLOW = 0x100
_CLONE_FS = 0x200
_XATTR_SIZE_MAX = 65536  # include/uapi/linux/limits.h; a list is no longer than that either
_PROC_FD = b"/proc/self/fd/%d/%s"
_XATTR_ARGS = struct.Struct("=QII")  # struct xattr_args: value, size, flags

# xfs lists an ACL a second time, as it lies on disk, under the name on the left (fs/xfs/xfs_xattr.c).
ACL_TWICE = {
    b"trusted.SGI_ACL_DEFAULT": b"system.posix_acl_default",
    b"trusted.SGI_ACL_FILE": b"system.posix_acl_access",
}

Xattrs = tuple[tuple[bytes, bytes], ...]

_P, _I, _U, _Z = ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_size_t
_V = ctypes.c_void_p
_listxattrat = system_call("listxattrat", _I, _P, _U, _V, _Z)
_getxattrat = system_call("getxattrat", _I, _P, _U, _P, _P, _Z)
_setxattrat = system_call("setxattrat", _I, _P, _U, _P, _P, _Z)
_removexattrat = system_call("removexattrat", _I, _P, _U, _P)
_unshare = function("unshare", _I)


def read_xattrs(target: int | bytes) -> Xattrs:
    """All extended attributes, sorted by name, of an open file (or of a path, which is not followed); an ACL once.

    Empty where the filesystem has none. Raises OSError.
    """
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return ()
        raise
    if not names:
        return ()
    return _gathered(
        _once([os.fsencode(name) for name in names], target),
        lambda name: os.getxattr(target, name, follow_symlinks=follow),
    )


def read_xattrs_at(dir_fd: int, name: bytes) -> Xattrs:
    """The same for any kind of file, by its name in ``dir_fd``."""
    if not HAVE_XATTRAT:
        found: Xattrs = _by_path(dir_fd, name, read_xattrs)
        return found
    length = _listxattrat(dir_fd, name, _AT_SYMLINK_NOFOLLOW, None, 0)
    if length == 0 or (length < 0 and ctypes.get_errno() == errno.EOPNOTSUPP):
        return ()
    check(length, "listxattrat", name)
    buffer = ctypes.create_string_buffer(_XATTR_SIZE_MAX)
    length = _listxattrat(dir_fd, name, _AT_SYMLINK_NOFOLLOW, buffer, len(buffer))
    check(length, "listxattrat", name)
    names = _once(buffer.raw[:length].split(b"\0")[:-1], dir_fd)
    return _gathered(names, lambda attribute: _get_at(dir_fd, name, attribute, buffer))


def set_xattr_at(dir_fd: int, name: bytes, attribute: bytes, value: bytes) -> None:
    """Create or replace one attribute of a name in ``dir_fd``."""
    if not HAVE_XATTRAT:
        _by_path(dir_fd, name, lambda path: os.setxattr(path, attribute, value, follow_symlinks=False))
        return
    held = ctypes.create_string_buffer(value, len(value)) if value else None
    arguments = _XATTR_ARGS.pack(ctypes.addressof(held) if held else 0, len(value), 0)
    result = _setxattrat(dir_fd, name, _AT_SYMLINK_NOFOLLOW, attribute, arguments, len(arguments))
    check(result, "setxattrat", name)


def remove_xattr_at(dir_fd: int, name: bytes, attribute: bytes) -> None:
    """Remove one attribute of a name in ``dir_fd``; ENODATA when there is none of that name."""
    if not HAVE_XATTRAT:
        _by_path(dir_fd, name, lambda path: os.removexattr(path, attribute, follow_symlinks=False))
        return
    check(_removexattrat(dir_fd, name, _AT_SYMLINK_NOFOLLOW, attribute), "removexattrat", name)


def _once(names: list[bytes], where: int | bytes) -> list[bytes]:
    """Without the second name of an ACL."""
    if not any(twice in names and acl in names for twice, acl in ACL_TWICE.items()):
        return names
    if filesystem_type(where if isinstance(where, int) else os.path.dirname(where) or b".") != "xfs":
        return names
    return [name for name in names if ACL_TWICE.get(name) not in names]


def _gathered(names: Iterable[bytes], value: Callable[[bytes], bytes]) -> Xattrs:
    """Sorted pairs, without those that were removed since they were listed."""
    found = []
    for name in sorted(names):
        try:
            found.append((name, value(name)))
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
    return tuple(found)


def _get_at(dir_fd: int, name: bytes, attribute: bytes, buffer: ctypes.Array[ctypes.c_char]) -> bytes:
    arguments = _XATTR_ARGS.pack(ctypes.addressof(buffer), len(buffer), 0)
    length = _getxattrat(dir_fd, name, _AT_SYMLINK_NOFOLLOW, attribute, arguments, len(arguments))
    return buffer.raw[: check(length, "getxattrat", name)]


def _xattrat_works() -> bool:
    return _listxattrat(-100, b"/", 0, None, 0) >= 0 or ctypes.get_errno() not in (errno.ENOSYS, errno.EPERM)


def _by_path(dir_fd: int, name: bytes, job: Callable[[bytes], Any]) -> Any:
    try:
        return job(_PROC_FD % (dir_fd, name))
    except (FileNotFoundError, NotADirectoryError):
        return _own_directory.run(dir_fd, lambda: job(name))


class _OwnDirectory:
    """A thread that calls functions in a directory of its own. Started when first used, anew after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[int, Callable[[], Any]]] | None = None
        self._results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run(self, dir_fd: int, job: Callable[[], Any]) -> Any:
        with self._lock:
            if self._jobs is None:
                self._jobs = queue.SimpleQueue()
                threading.Thread(target=self._work, args=(self._jobs,), name="xattr", daemon=True).start()
            self._jobs.put((dir_fd, job))
            value, error = self._results.get()
        if error is not None:
            raise error
        return value

    def _work(self, jobs: queue.SimpleQueue[tuple[int, Callable[[], Any]]]) -> None:
        alone = _unshare(_CLONE_FS) == 0
        code = ctypes.get_errno()
        while True:
            dir_fd, job = jobs.get()
            try:
                if not alone:  # fchdir would move the whole process
                    raise failure("unshare", code=code)
                os.fchdir(dir_fd)
                self._results.put((job(), None))
            except BaseException as error:
                self._results.put((None, error))


HAVE_XATTRAT = _xattrat_works()
_own_directory = _OwnDirectory()
# A lock that another thread held at the fork would never be released in the child.
os.register_at_fork(after_in_child=lambda: _own_directory.__init__())  # type: ignore[misc]
