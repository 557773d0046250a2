"""Writing dirty pages out: of one file, apart from the filesystem's journal (sync_file_range(2)), or all of one
filesystem's (syncfs(2)).
"""

from __future__ import annotations

import ctypes
import os

from snapbreaker.linux.libc import check, function

# <linux/fs.h>
_WRITE = 2
_WAIT_BEFORE_WRITE_WAIT_AFTER = 1 | 2 | 4

_sync_file_range = function("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)

_syncfs = function("syncfs", ctypes.c_int)


def syncfs(fd: int) -> None:
    """Write the filesystem that holds ``fd`` to disk. Write errors are reported since Linux 5.8 (syncfs(2))."""
    check(_syncfs(fd), "syncfs")


def sync_filesystem(path: str) -> None:
    """Have all of the filesystem that holds ``path`` on disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syncfs(fd)
    finally:
        os.close(fd)


def write_back(fd: int) -> None:
    """Write all dirty pages of an open file; fsync(2) where the filesystem cannot do just that.

    Every page is write-protected before it is written, so the next write through a mapping faults and gives the
    file a new ctime (mm/page-writeback.c, folio_clear_dirty_for_io).
    """
    if _sync_file_range(fd, 0, 0, _WAIT_BEFORE_WRITE_WAIT_AFTER) < 0:
        os.fsync(fd)


def start_write_back(fd: int, start: int, length: int) -> None:
    """Have the disk begin with this range, without waiting. A hint: nothing is lost where it is not followed."""
    _sync_file_range(fd, start, length, _WRITE)
