"""File handles: names of inodes that need no path. name_to_handle_at(2)."""

from __future__ import annotations

import ctypes
import os
import struct
import sys

from snapbreaker.linux.libc import check, function

Handle = tuple[int, bytes]  # type and bytes
_AT_FDCWD = -100
_MAX_HANDLE_SZ = 128
_HEADER = struct.Struct("=Ii")  # handle_bytes, handle_type
# Types whose bytes begin with a 32-bit inode number: include/linux/exportfs.h.
_INO32_GEN = frozenset({1, 2})  # FILEID_INO32_GEN, FILEID_INO32_GEN_PARENT

_name_to_handle_at = function(
    "name_to_handle_at", ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int), ctypes.c_int
)


def handle_of(path: str | bytes, directory: int = _AT_FDCWD) -> Handle:
    """The handle of ``path``, relative to the open ``directory``; a symbolic link at its end is not followed.

    Raises OSError: EOPNOTSUPP where the filesystem has none.
    """
    buffer = ctypes.create_string_buffer(_HEADER.pack(_MAX_HANDLE_SZ, 0), _HEADER.size + _MAX_HANDLE_SZ)
    mount_id = ctypes.c_int()
    check(
        _name_to_handle_at(directory, os.fsencode(path), buffer, ctypes.byref(mount_id), 0),
        "name_to_handle_at",
        path,
    )
    count, kind = _HEADER.unpack_from(buffer.raw)
    return kind, buffer.raw[_HEADER.size : _HEADER.size + count]


def inode_of(handle: Handle) -> int | None:
    """The inode number in a handle; None where it is not of a type that is known to hold one."""
    kind, data = handle
    if kind not in _INO32_GEN or len(data) < 8:
        return None
    return int.from_bytes(data[:4], sys.byteorder)


def tell_inodes(path: str) -> bool:
    """Whether the handles of the filesystem at ``path`` hold inode numbers, as that of ``path`` itself shows."""
    try:
        return inode_of(handle_of(path)) == os.stat(path).st_ino
    except OSError:
        return False
