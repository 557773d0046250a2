"""Keeping this process in memory while the machine below it is broken."""

from __future__ import annotations

from contextlib import suppress
from ctypes import c_int, c_size_t, c_void_p

from snapbreaker.linux.libc import check, function
from snapbreaker.linux.process import read_whole

MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4  # mlockall(2)
MADV_POPULATE_READ = 22  # madvise(2), Linux 5.14

_mlockall = function("mlockall", c_int)
_madvise = function("madvise", c_void_p, c_size_t, c_int)


def lock_memory() -> bool:
    """Lock all pages that this process has or touches later; whether the kernel allowed it.

    The pages of mapped files are read in first, so nothing has to come from a file system any more.
    ``MCL_ONFAULT`` (Linux 4.4) leaves what was never touched out, such as the unused part of thread stacks, and
    what is shared with another process since fork(2) is locked as it is: ``MCL_CURRENT`` alone would copy all of
    it (15 MB; 10 ms in each of three processes).
    """
    with suppress(OSError):
        if not _read_mapped_files():
            check(_mlockall(MCL_CURRENT), "mlockall")
        check(_mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT), "mlockall")
        return True
    return False


def _read_mapped_files() -> bool:
    """Have all readable pages of mapped files in memory and in the page table; False where the kernel cannot."""
    try:
        for line in read_whole("/proc/self/maps").splitlines():
            place, mode, _offset, _device, inode = line.split(maxsplit=5)[:5]
            if inode != b"0" and mode.startswith(b"r"):
                start, end = (int(address, 16) for address in place.split(b"-"))
                check(_madvise(start, end - start, MADV_POPULATE_READ), "madvise")
    except OSError:
        return False
    return True
