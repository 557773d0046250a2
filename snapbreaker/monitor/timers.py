"""The clocks of a run: silence, silence however busy, and the whole. They stand still while the operator has it
stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Clocks:
    """Seconds of ``clock`` (monotonic). ``idle``, ``timeout`` or ``hard`` None or 0: that clock never ends.

    ``hard`` is counted from the last output, whatever the command does; it counts where ``idle`` can be put off:
    while the command is stopped, and with ``activity``.
    """

    def __init__(
        self,
        idle: float | None,
        timeout: float | None,
        hard: float | None = None,
        activity: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.idle, self.timeout = idle or None, timeout or None
        self.hard = max(hard, idle or 0.0) if hard and (idle or timeout) else None
        self._activity = activity
        self._clock = clock
        self._heard = self._alive = self._started = clock()
        self._paused_at: float | None = None

    def touch(self) -> None:
        """There was output, or it is our reader who is slow: the silence starts anew."""
        self._heard = self._alive = now = self._clock()
        if self._paused_at is not None:  # `resume` moves it by what comes from here on
            self._started += now - self._paused_at
            self._paused_at = now

    def lives(self) -> None:
        """No output, but the command is at work."""
        self._alive = self._clock()

    def pause(self) -> None:
        if self._paused_at is None:
            self._paused_at = self._clock()

    def resume(self) -> None:
        if self._paused_at is not None:
            away = self._clock() - self._paused_at
            self._heard += away
            self._alive += away
            self._started += away
            self._paused_at = None

    @property
    def paused(self) -> bool:
        return self._paused_at is not None

    @property
    def running_for(self) -> float:
        """Seconds since the start, without those of a stop."""
        return self._clock() - self._started

    @property
    def quiet_for(self) -> float:
        """Seconds of the silence that ``idle`` limits."""
        return self._clock() - self._alive

    @property
    def silent_for(self) -> float:
        """The limit that silence has reached."""
        return self.hard if self._ended(self._heard, self._hard()) and self.hard else self.idle or 0.0

    def deadline(self) -> float | None:
        """When the next of them ends, None for never."""
        hard = self._hard()
        ends = [self._heard + hard] if hard else []
        if not self.paused:
            ends += [self._alive + self.idle] if self.idle else []
            ends += [self._started + self.timeout] if self.timeout else []
        return min(ends, default=None)

    def silent(self) -> bool:
        idle = not self.paused and self._ended(self._alive, self.idle)
        return idle or self._ended(self._heard, self._hard())

    def over(self) -> bool:
        return not self.paused and self._ended(self._started, self.timeout)

    def _hard(self) -> float | None:
        return self.hard if self.paused or (self._activity and self.idle) else None

    def _ended(self, since: float, limit: float | None) -> bool:
        return limit is not None and self._clock() >= since + limit

    def stop_timeout(self) -> None:
        """It was reported, and the run goes on (observe mode)."""
        self.timeout = None
