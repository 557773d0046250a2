"""When a command is over: its own process has ended, and its output has.

Processes that it leaves running may hold the output open: after LINGER seconds without any, or LINGER_LIMIT at
most, it is closed (they get EPIPE, as in any pipeline). What they write until then is judged, and so is what was
written to logs.
"""

from __future__ import annotations

import time

from snapbreaker.monitor.elsewhere import Elsewhere
from snapbreaker.monitor.intake import Intake
from snapbreaker.monitor.relays import Relays

LINGER = 1.0
LINGER_LIMIT = 10.0


class Ending:
    """``begun``: the command's own process has ended."""

    def __init__(self, intake: Intake, relays: Relays, elsewhere: Elsewhere) -> None:
        self._intake, self._relays, self._elsewhere = intake, relays, elsewhere
        self._at: float | None = None

    @property
    def begun(self) -> bool:
        return self._at is not None

    def begin(self) -> None:
        self._at = time.monotonic()

    def put_off(self) -> None:
        """Output waits for a reader of ours."""
        if self._at is not None:
            self._at = time.monotonic()

    def deadline(self) -> float | None:
        """Until when (monotonic) output that is still open is read."""
        if self._at is None or self._intake.ended:
            return None
        return min(max(self._at, self._intake.last) + LINGER, self._at + LINGER_LIMIT)

    def is_over(self) -> bool:
        if self._at is None or self._relays.pending:
            return False
        end = self.deadline()
        return (end is None or time.monotonic() >= end) and self._elsewhere.is_over()
