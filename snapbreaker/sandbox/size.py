"""How much a sandbox in memory may hold."""

from __future__ import annotations

from snapbreaker.errors import CheckpointError, UsageError

SMALLEST = 64 << 20
_LARGEST = 8 << 30
_PART = 2  # of what is available
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def available() -> int:
    """Octets of memory that can be had without swapping: MemAvailable of proc_meminfo(5)."""
    return _free("MemAvailable:")


def _free(field: str) -> int:
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith(field):
                return int(line.split()[1]) << 10
    return 0


def usual() -> int:
    """A part of that, and not without end."""
    return min(available() // _PART, _LARGEST)


def checked(octets: int) -> int:
    """``octets``. Raises CheckpointError when there is not so much: memory that is full ends other processes."""
    if octets > (most := available() + _free("SwapFree:")):
        raise CheckpointError(
            f"a sandbox of {octets >> 20} MiB is asked for, and only {most >> 20} MiB of memory are available",
            "--upper DIR keeps the changes on a disk",
        )
    return octets


def parse(text: str, option: str = "--upper-size") -> int:
    """``512M`` in octets. ``option`` is whose it is. Raises UsageError."""
    number, unit = text.upper().removesuffix("IB").removesuffix("B"), ""
    if number and number[-1] in _UNITS:
        number, unit = number[:-1], number[-1]
    if not number.isascii() or not number.isdecimal() or int(number) * _UNITS[unit] < 1 << 20:
        raise UsageError(f"{option} {text} is no size from 1M on", "512M, or 4G")
    return int(number) * _UNITS[unit]
