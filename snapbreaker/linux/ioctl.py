"""Request numbers of ioctl(2), as ``_IOC`` of <asm-generic/ioctl.h> makes them."""

from __future__ import annotations

import os

# powerpc, mips, sparc and alpha have 13 bits of size and 3 of direction, with other values (asm/ioctl.h).
_ODD = os.uname().machine.startswith(("ppc", "mips", "sparc", "alpha"))
_NONE, _READ, _WRITE = (1, 2, 4) if _ODD else (0, 2, 1)
_DIRECTION_SHIFT = 29 if _ODD else 30


def _ioc(direction: int, kind: int, number: int, size: int) -> int:
    return direction << _DIRECTION_SHIFT | size << 16 | kind << 8 | number


def io(kind: int, number: int) -> int:
    """A request without an argument."""
    return _ioc(_NONE, kind, number, 0)


def ior(kind: int, number: int, size: int) -> int:
    """A request that the kernel answers by filling ``size`` bytes."""
    return _ioc(_READ, kind, number, size)


def iow(kind: int, number: int, size: int) -> int:
    """A request that hands ``size`` bytes to the kernel."""
    return _ioc(_WRITE, kind, number, size)


def iowr(kind: int, number: int, size: int) -> int:
    """A request that hands over ``size`` bytes and gets them back changed."""
    return _ioc(_READ | _WRITE, kind, number, size)
