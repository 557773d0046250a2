"""The C library, loaded once, and how its failures become OSError."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)

# The numbers above 402 are the same on these architectures (Documentation/process/adding-syscalls.rst; the tables
# below arch/*/ were joined in Linux 5.0). Elsewhere (alpha, mips) they are not, and the calls count as missing.
_COMMON_NUMBERS = frozenset(
    {
        "x86_64",
        "i386",
        "i686",
        "aarch64",
        "armv6l",
        "armv7l",
        "riscv64",
        "ppc64",
        "ppc64le",
        "s390x",
        "loongarch64",
    }
)
_NUMBERS = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
}


def check(result: int, what: str, path: str | bytes | None = None) -> int:
    """Return ``result``, or raise OSError when it is negative.

    ``what`` names the call, ``path`` what it was done to. The errno is the one that ctypes saved for this thread.
    """
    if result >= 0:
        return result
    raise failure(what, path)


def failure(what: str, path: str | bytes | None = None, code: int | None = None) -> OSError:
    """The OSError (FileNotFoundError and so on where one fits) for the last failed call, or for ``code``."""
    number = ctypes.get_errno() if code is None else code
    return OSError(number, f"{what}: {os.strerror(number)}", path)


def function(name: str, *arguments: Any, result: Any = ctypes.c_int) -> Callable[..., int]:
    """A function of the C library with its own argument types; its errno is kept for ``check``.

    One that this C library does not have fails with ENOSYS when it is called.
    """
    try:
        found: Callable[..., int] = ctypes.CFUNCTYPE(result, *arguments, use_errno=True)((name, libc))
    except AttributeError:
        return _missing
    return found


def system_call(name: str, *arguments: Any) -> Callable[..., int]:
    """A system call that the C library has no wrapper for; ENOSYS where its number is not known for certain."""
    number = system_call_number(name)
    if number is None:
        return _missing
    raw = function("syscall", ctypes.c_long, *arguments, result=ctypes.c_long)
    return functools.partial(raw, number)


def system_call_number(name: str) -> int | None:
    """The number on this machine; None where it is not known for certain."""
    return _NUMBERS[name] if os.uname().machine in _COMMON_NUMBERS else None


def _missing(*_: object) -> int:
    ctypes.set_errno(errno.ENOSYS)
    return -1
