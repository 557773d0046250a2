"""Which system call a task is in that waits for an answer, and whether that call can only read.

/proc/TID/syscall (proc_pid_syscall(5)) shows number and arguments as the task's own ABI gave them, so only the
numbers of our own architecture prove anything: calls of 32-bit programs, io_uring's workers, core dumps and
whatever is unknown count as writes. That a file is *open for writing* a lease tells (``linux.lease``), whoever
opens it and however; what is asked here is only what a lease cannot tell: O_TRUNC without write access, and
truncate(2).
"""

from __future__ import annotations

import os
import platform
import struct
import time
from typing import NamedTuple

from snapbreaker.linux.process import read_whole

_O_TRUNC = os.O_TRUNC
_RUNNING = b"running"
_PAUSES = (0.0, 0.0001, 0.0003, 0.001, 0.003)  # s; all others that ask wait as long


class _Table(NamedTuple):
    """Numbers of one architecture (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h)."""

    flags: dict[int, int]  # calls that open a file, and which argument holds the flags
    openat2: int
    execute: frozenset[int]
    read: frozenset[int]  # calls that read content only, on a descriptor that is open for reading only


_TABLES = {
    "x86_64": _Table(
        {2: 1, 257: 2, 304: 2},
        437,
        frozenset({59, 322}),
        frozenset({0, 9, 17, 19, 40, 187, 275, 295, 326, 327, 59, 322}),
    ),
    "aarch64": _Table(
        {56: 2, 265: 2},
        437,
        frozenset({221, 281}),
        frozenset({63, 65, 67, 69, 71, 76, 213, 222, 285, 286, 221, 281}),
    ),
}
_TABLE = _TABLES.get(platform.machine())


def is_known() -> bool:
    """Whether this architecture's calls can be told apart at all."""
    return _TABLE is not None


def opens_without_truncating(tid: int) -> bool:
    """Whether the call by which a task opens a file, not for writing, is proven to leave the content alone."""
    call = _call(tid)
    if call is None or _TABLE is None or not call:
        return False
    number = call[0]
    if number in _TABLE.execute:
        return True
    if number in _TABLE.flags:
        return not call[1 + _TABLE.flags[number]] & _O_TRUNC
    return number == _TABLE.openat2 and not _flags_of_how(tid, call[3]) & _O_TRUNC


def only_reads(tid: int) -> bool:
    """The same of a call, or a page fault, that reaches for the content of a file that nobody has for writing."""
    call = _call(tid)
    return call is not None and _TABLE is not None and (not call or call[0] in _TABLE.read)


def _call(tid: int) -> list[int] | None:
    """Number and arguments; empty: it waits outside of a call (a fault); None: that cannot be told."""
    try:
        words = _when_asleep(tid)
        if not words or words[0] == _RUNNING:
            return None
        number = int(words[0])
        return [] if number < 0 else [number, *(int(word, 16) for word in words[1:7])]
    except (OSError, ValueError):
        return None


def _when_asleep(tid: int) -> list[bytes]:
    """The words of /proc/TID/syscall. The kernel wakes us a moment before the task that asks falls asleep: on one
    processor we run first, each time.
    """
    for pause in _PAUSES:
        words = read_whole(f"/proc/{tid}/syscall").split()
        if words[:1] != [_RUNNING]:
            break
        time.sleep(pause)
    return words


def _flags_of_how(tid: int, address: int) -> int:
    """The first field of struct open_how (openat2(2)); all bits where it cannot be read."""
    try:
        fd = os.open(f"/proc/{tid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            flags: int = struct.unpack("=Q", os.pread(fd, 8, address))[0]
            return flags
        finally:
            os.close(fd)
    except (OSError, struct.error):
        return -1
