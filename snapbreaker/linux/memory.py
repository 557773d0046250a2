"""Keeping this process in memory while the machine below it is broken."""

from __future__ import annotations

from contextlib import suppress

from snapbreaker.linux.libc import check, libc

MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4  # mlockall(2)


def lock_memory() -> bool:
    """Lock all pages that this process has or touches later; whether the kernel allowed it.

    ``MCL_ONFAULT`` (Linux 4.4) leaves what was never touched out, such as the unused part of thread stacks.
    Pages already touched are read in first, so nothing has to come from a file system any more.
    """
    with suppress(OSError):
        check(libc.mlockall(MCL_CURRENT), "mlockall")
        check(libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT), "mlockall")
        return True
    return False
