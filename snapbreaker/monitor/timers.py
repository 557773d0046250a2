"""The two clocks of a run: silence, and the whole. Both stand still while the operator has it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clocks:
    """Seconds of ``clock`` (monotonic). ``idle`` or ``timeout`` None or 0: that clock never ends."""

    def __init__(
        self, idle: float | None, timeout: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.idle, self.timeout = idle or None, timeout or None
        self._clock = clock
        self._heard = self._started = clock()
        self._paused_at: float | None = None

    def touch(self) -> None:
        """There was output, or it is our reader who is slow: the silence starts anew."""
        self._heard = self._clock()

    def pause(self) -> None:
        if self._paused_at is None:
            self._paused_at = self._clock()

    def resume(self) -> None:
        if self._paused_at is not None:
            away = self._clock() - self._paused_at
            self._heard += away
            self._started += away
            self._paused_at = None

    @property
    def paused(self) -> bool:
        return self._paused_at is not None

    def deadline(self) -> float | None:
        """When the next of the two ends, None for never."""
        if self.paused:
            return None
        ends = [self._heard + self.idle] if self.idle else []
        ends += [self._started + self.timeout] if self.timeout else []
        return min(ends, default=None)

    def silent(self) -> bool:
        return self._ended(self._heard, self.idle)

    def over(self) -> bool:
        return self._ended(self._started, self.timeout)

    def _ended(self, since: float, limit: float | None) -> bool:
        return limit is not None and not self.paused and self._clock() >= since + limit

    def stop_timeout(self) -> None:
        """It was reported, and the run goes on (observe mode)."""
        self.timeout = None
