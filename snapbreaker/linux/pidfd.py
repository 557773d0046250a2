"""Signals to processes that cannot hit a stranger: pidfd_open(2), pidfd_send_signal(2), Linux 5.3."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from snapbreaker.linux.process import Identity, process


def send_signal(target: Identity, number: int) -> bool:
    """Signal this very process; False when it is gone. Raises PermissionError where that is refused.

    The start time is compared after the descriptor is open: from then on the pid cannot change its owner unseen.
    """
    try:
        fd = os.pidfd_open(target.pid)
    except ProcessLookupError:
        return False
    except OSError:
        return _send_by_pid(target, number)
    try:
        if not _is_same(target):
            return False
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def _is_same(target: Identity) -> bool:
    found = process(target.pid)
    return found is not None and found.start == target.start


def _send_by_pid(target: Identity, number: int) -> bool:
    """Where pidfd_open is refused or missing (seccomp, Linux before 5.3)."""
    with suppress(ProcessLookupError):
        if _is_same(target):
            os.kill(target.pid, number)
            return True
    return False
