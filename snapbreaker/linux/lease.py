"""Whether anybody has a file open for writing, asked of the kernel by a lease: F_SETLEASE of fcntl(2)."""

from __future__ import annotations

import errno
import fcntl
import signal


def expect_breaks() -> None:
    """Once in each process that asks: a lease that somebody breaks while we have it sends SIGIO, which would end
    us. A handler, unlike SIG_IGN, is not inherited by programs that are executed.
    """
    signal.signal(signal.SIGIO, lambda *_: None)


def is_open_for_writing(fd: int) -> bool:
    """Whether the file behind ``fd`` (itself opened for reading) is open for writing or mapped so, by anyone.

    The lease is given back at once: an open for writing that comes just then waits for that only. False where
    nothing can be told: filesystems without leases, or neither owner nor CAP_LEASE.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def nobody_writes(fd: int) -> bool:
    """Whether it is proven that nobody has the file open for writing, or is just opening it so.

    The kernel counts a writer before it asks a fanotify permission group (fs/open.c, do_dentry_open), so this also
    tells of the very open that waits for an answer, by whatever call. False where leases do not work.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    return True
