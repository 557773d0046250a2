"""Writing a file's dirty pages without waiting for the filesystem's journal: sync_file_range(2)."""

from __future__ import annotations

import ctypes
import os

from snapbreaker.linux.libc import function

_WAIT_BEFORE_WRITE_WAIT_AFTER = 1 | 2 | 4  # <linux/fs.h>

_sync_file_range = function("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def write_back(fd: int) -> None:
    """Write all dirty pages of an open file; fsync(2) where the filesystem cannot do just that.

    Every page is write-protected before it is written, so the next write through a mapping faults and gives the
    file a new ctime (mm/page-writeback.c, folio_clear_dirty_for_io).
    """
    if _sync_file_range(fd, 0, 0, _WAIT_BEFORE_WRITE_WAIT_AFTER) < 0:
        os.fsync(fd)
