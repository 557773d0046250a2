"""Waiting for many descriptors: poll(2), set up anew only when it waits for something else."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

# Milliseconds without output until rules are prepared, and for how long at a time: the command comes first.
_BREATH = 2


class Poller:
    """``prepare`` does a small part of other work while there is nothing to do; False when there is no more."""

    def __init__(self, prepare: Callable[[], bool]) -> None:
        self._prepare = prepare
        self._polled: dict[int, int] = {}
        self._poll = select.poll()

    def wait(self, wanted: dict[int, int], deadline: float | None) -> dict[int, int]:
        """Until a descriptor is ready or ``deadline`` (monotonic) has come; which are, with their events."""
        if wanted != self._polled:
            self._polled, self._poll = wanted, select.poll()
            for fd, events in wanted.items():
                self._poll.register(fd, events)
        patience = _milliseconds(deadline)
        ready = self._poll.poll(_BREATH if patience is None else min(patience, _BREATH))
        end = time.monotonic() + _BREATH / 1000
        while not ready:
            if not self._prepare():
                ready = self._poll.poll(_milliseconds(deadline))
                break
            if time.monotonic() >= end:
                break
            ready = self._poll.poll(0)
        return dict(ready)


def _milliseconds(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, (deadline - time.monotonic()) * 1000)
