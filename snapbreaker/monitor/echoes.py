"""Issues of a log that mostly repeats what the command has printed: told once, by whichever shows it.

apt writes to its term.log what dpkg and its scripts print, also where its own output goes nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from snapbreaker.issue import Issue

PATIENCE = 1.0  # s in which the command's own output may show the same line


class Echoes:
    """``printed`` says whether the command's own output has shown a line."""

    def __init__(self, printed: Callable[[str], bool]) -> None:
        self._printed = printed
        self._waiting: list[tuple[float, Issue]] = []

    def add(self, issues: Iterable[Issue]) -> None:
        due = time.monotonic() + PATIENCE
        self._waiting += [(due, issue) for issue in issues]

    def ripe(self, ended: bool = False) -> list[Issue]:
        """Those that it did not show in time; ``ended``: it will show no more."""
        now = time.monotonic()
        ripe = [issue for due, issue in self._waiting if ended or due <= now]
        if ripe:
            self._waiting = [] if ended else [one for one in self._waiting if one[0] > now]
        return [issue for issue in ripe if not self._printed(issue.line)]

    def deadline(self) -> float | None:
        return min((due for due, _ in self._waiting), default=None)
