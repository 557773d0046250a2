"""Record locks of other processes, looked at without taking them: fcntl(2), "Advisory record locking"."""

from __future__ import annotations

import fcntl
import os
import struct

# struct flock: type, whence, start, length, pid, as the C library lays it out with 64-bit offsets.
_FLOCK = struct.Struct("@hhqqi0q")


def holder_text(fd: int) -> str:
    """Who holds a lock on the open file, in words."""
    pid = holder(fd)
    if pid <= 0:
        return "somebody"
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return f"process {pid} ({file.read().strip()})"
    except OSError:
        return f"process {pid}"


def is_locked(fd: int) -> bool:
    """Whether another process holds a lock on any part of the open file. Raises OSError."""
    return holder(fd) != 0


def holder(fd: int) -> int:
    """The pid of a process that holds a lock on any part of the open file: -1 when it is not known (one of another
    pid namespace, or an open file description), 0 when there is none. Raises OSError.
    """
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    return int(pid) or -1 if kind != fcntl.F_UNLCK else 0
