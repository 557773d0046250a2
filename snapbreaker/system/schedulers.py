"""cron(8) and atd(8) stand still while the files that tell them what to run go back.

Else one of them could start a job of the run between the look for such jobs and the end of the restore. They run
what they missed when they are let go: cron(8), which catches up with its clock.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Container
from contextlib import suppress

from snapbreaker.linux.pidfd import send_signal
from snapbreaker.linux.process import Process, process, processes
from snapbreaker.system.cron import DAEMONS, is_here

AT = ("atd",)
_STILL = 0.5  # s to wait for a standstill
_POLL = 0.001


def hold(names: Container[str]) -> None:
    """Stop the daemons with these names of ``DAEMONS`` and ``AT``, by SIGSTOP: no manager takes notice of that."""
    found = [one for one in _daemons() if one.comm in names]
    for one in found:
        with suppress(PermissionError):
            send_signal(one.identity, signal.SIGSTOP)
    deadline = time.monotonic() + _STILL
    while any(_runs(one) for one in found) and time.monotonic() < deadline:
        time.sleep(_POLL)


def let_go() -> None:
    """All of them: one that another process held, which died since, too."""
    for one in _daemons():
        if one.stopped:
            with suppress(PermissionError):
                send_signal(one.identity, signal.SIGCONT)


def _daemons() -> list[Process]:
    seen = processes()
    chiefs = [one for one in seen.values() if one.comm in (*DAEMONS, *AT) and not one.dead]
    return [
        one for one in chiefs if (one.parent not in seen or seen[one.parent].comm != one.comm) and is_here(one.pid)
    ]


def _runs(one: Process) -> bool:
    now = process(one.pid)
    return now is not None and now.start == one.start and not now.stopped and not now.dead
