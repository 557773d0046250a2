"""Who forked whom, also when both are gone: most writers that end at once are gone before anybody can look."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from snapbreaker.linux.proc_events import Fork, ForkEvents

INTERVAL = 0.1  # s between two looks at what has come
_REMEMBERED = 1 << 16  # processes; they are forgotten from the oldest on
_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")  # ns


class Ancestry:
    """Forks since it was made; none where the kernel does not tell of them."""

    def __init__(self) -> None:
        self._forks: dict[int, Fork] = {}
        self._events: ForkEvents | None = None
        self._next = 0.0
        # Start times count from boot, also while the machine sleeps; events do not.
        self._asleep = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        with suppress(OSError):
            self._events = ForkEvents()

    def __bool__(self) -> bool:
        return self._events is not None

    def refresh_if_due(self) -> None:
        """Make room in the kernel's buffer for more."""
        if time.monotonic() >= self._next:
            self.refresh()

    def refresh(self) -> None:
        self._next = time.monotonic() + INTERVAL
        if self._events is None:
            return
        for fork in self._events.take():
            self._forks.pop(fork.child, None)  # so that the order is that of time
            self._forks[fork.child] = fork
        if len(self._forks) > _REMEMBERED:
            for pid in list(self._forks)[: _REMEMBERED // 2]:
                del self._forks[pid]

    def of(self, pid: int) -> Fork | None:
        """The fork that made the latest process with this pid."""
        return self._forks.get(pid)

    def was_there(self, start: int, fork: Fork) -> bool:
        """Whether a process that started at ``start`` (ticks since boot) can be the parent of that fork."""
        return start * _TICK <= fork.time + self._asleep + _TICK

    def close(self) -> None:
        if self._events is not None:
            with suppress(OSError):
                self._events.close()
