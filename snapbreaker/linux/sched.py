"""Being scheduled at once, also when every processor is busy: sched(7)."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

_OTHERS, _OURS = 1, 2  # SCHED_FIFO priorities


class Scheduling(NamedTuple):
    """How one thread was scheduled."""

    thread: int
    policy: int
    priority: int
    nice: int


def put_first(thread: int) -> Scheduling | None:
    """Let another thread run before all ordinary ones; how it was before, None when that could not be changed."""
    with suppress(OSError):
        policy, priority = os.sched_getscheduler(thread), os.sched_getparam(thread).sched_priority
        before = Scheduling(thread, policy, priority, os.getpriority(os.PRIO_PROCESS, thread))
        with suppress(OSError):
            os.sched_setscheduler(thread, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(_OTHERS))
            return before
        os.setpriority(os.PRIO_PROCESS, thread, -20)
        return before
    return None


def put_back(before: Scheduling) -> None:
    with suppress(OSError):
        os.sched_setscheduler(before.thread, before.policy, os.sched_param(before.priority))
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, before.thread, before.nice)


@contextmanager
def urgent() -> Iterator[str]:
    """Run this thread before all ordinary ones; yields how: ``fifo``, ``nice`` or ``normal``.

    SCHED_FIFO just above what ``put_first`` gives, else nice -20 (no realtime bandwidth in this cgroup, or a
    container without CAP_SYS_NICE), else nothing. SCHED_RESET_ON_FORK keeps it from children. What was set before
    is put back.
    Objects that exist now are left out of garbage collection meanwhile: a pass over a large heap takes longer
    than a halt may.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    gc.freeze()
    try:
        yield _raise_priority(policy)
    finally:
        gc.unfreeze()
        with suppress(OSError):
            os.sched_setscheduler(0, policy, parameters)
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, nice)


def _raise_priority(policy: int) -> str:
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(_OURS))
        return "fifo"
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        with suppress(OSError):
            os.sched_setscheduler(0, policy | os.SCHED_RESET_ON_FORK, os.sched_getparam(0))
        return "nice"
    return "normal"
