"""This process' open files, all of them."""

from __future__ import annotations

import os
import resource
from contextlib import suppress


def close_all_but(kept: set[int]) -> None:
    """For a child that goes its own way: what it inherited may be locks."""
    close(open_descriptors() - kept)


def open_descriptors() -> set[int]:
    numbers = os.listdir("/proc/self/fd")  # with that of the listing itself, which is closed now
    return {int(number) for number in numbers if os.path.lexists(f"/proc/self/fd/{number}")}


def close(numbers: set[int]) -> None:
    for number in numbers:
        with suppress(OSError):
            os.close(number)


def allow_descriptors(count: int) -> None:
    """Raise the limit of open files to ``count`` where that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < count:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(count, hard)))
