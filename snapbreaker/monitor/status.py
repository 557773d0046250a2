"""A quiet line on the operator's terminal, below the output, as long as the command prints nothing.

It is drawn only where the output stands at the start of a line, and goes before anything else is shown, so it
never mixes with it. A program that draws on the screen itself ends it for good.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping

from snapbreaker.monitor.streams import Relay
from snapbreaker.monitor.timers import Clocks
from snapbreaker.report.wording import clipped, count_text, minutes_text

_QUIET = 0.5  # seconds without output until it is drawn
_PERIOD = 1.0  # seconds from one drawing to the next
_WIDTH = 80  # columns of a terminal that does not say
# Another screen, a place on it, a scrolling region, a saved place (console_codes(4)): whoever uses these draws.
_DRAWS = re.compile(rb"\x1b(?:[78c]|\[(?:\?(?:47|104[79])h|[\d;]*[Hfdrsu]))")
_LONGEST = 16  # octets of such a sequence that may have come before the rest of it


class StatusLine:
    """``lines`` tells how many there were by source, ``about`` what else is said. ``relay`` None: no line."""

    def __init__(
        self, relay: Relay | None, clocks: Clocks, lines: Callable[[], Mapping[str, int]], about: str
    ) -> None:
        self._relay, self._clocks, self._lines, self._about = relay, clocks, lines, about
        self._due = time.monotonic() + _QUIET
        self._tail = b""

    def deadline(self) -> float | None:
        """Monotonic time at which it wants to be drawn."""
        return self._due if self._relay else None

    def output(self, data: bytes) -> None:
        """The command has printed ``data``; call it before that is passed on."""
        if self._relay is None:
            return
        self._due = time.monotonic() + _QUIET
        if b"\x1b" in data or self._tail:
            seen = self._tail + data
            self._tail = seen[-_LONGEST:] if b"\x1b" in seen[-_LONGEST:] else b""
            if _DRAWS.search(seen):
                self.end()

    def on_time(self) -> None:
        """Draw it, when it is time to."""
        if self._relay is None or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _PERIOD
        if self._relay.is_idle and not self._clocks.paused:
            width = _columns(self._relay.fd)
            text = clipped(self._text(), width - 1) if width > len("snapbreaker: ...") else ""
            self._relay.draw(b"\x1b[2m%s\x1b[0m" % text.encode("ascii", "replace") if text else b"")

    def wipe(self) -> None:
        """Take it away for now."""
        if self._relay is not None:
            self._relay.wipe()

    def end(self) -> None:
        """Take it away for good. Idempotent."""
        self.wipe()
        self._relay = None

    def _text(self) -> str:
        parts = [minutes_text(self._clocks.running_for), count_text(sum(self._lines().values()), "line")]
        limit = self._clocks.idle
        silence = f"silent for {self._clocks.quiet_for:.0f} s"
        parts.append(f"{silence} of {limit:g} s" if limit else silence)
        return "snapbreaker: " + ", ".join([*parts, self._about])


def _columns(fd: int) -> int:
    try:
        return os.get_terminal_size(fd).columns or _WIDTH
    except OSError:
        return _WIDTH
