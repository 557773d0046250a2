"""The memory of this process's descendants, looked at again and again while they work."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from types import TracebackType

from tests.bench.processes import below, forget_peak, peak_bytes, proportional_bytes

INTERVAL = 0.02  # seconds between two looks


class Peaks:
    """By phase, as ``begin`` names them: what was the most. A phase without a name does not count; nor do the
    processes ``besides`` and their descendants.
    """

    def __init__(self) -> None:
        self.besides: Collection[int] = ()
        self._phase = ""
        self._found: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def begin(self, phase: str) -> None:
        """What was before counts for the phase before; every peak begins anew."""
        with self._lock:
            self._look()
            self._phase = phase
            for pid in below():
                forget_peak(pid)

    def found(self) -> Iterator[tuple[str, int, int]]:
        """Of each phase the most bytes of one process, and of all together at one time."""
        for phase, (one, together) in self._found.items():
            if phase:
                yield phase, one, together

    def _look_on(self) -> None:
        while not self._end.wait(INTERVAL):
            with self._lock:
                self._look()

    def _look(self) -> None:
        there = list(below(self.besides))
        one, together = self._found.get(self._phase, (0, 0))
        self._found[self._phase] = (
            max(one, *map(peak_bytes, there), 0),
            max(together, sum(map(proportional_bytes, there))),
        )
