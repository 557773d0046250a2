"""The instant of a trip: the first issue stops everything at once."""

from __future__ import annotations

import time
from collections.abc import Sequence

from snapbreaker.issue import Issue
from snapbreaker.monitor.judge import Judge
from snapbreaker.monitor.lines import Line
from snapbreaker.monitor.process_tree import ProcessTree
from snapbreaker.monitor.watched import Watched

FREEZE = 0.05  # seconds to wait for a standstill before killing anyway
CONTEXT = 10  # lines before and after
_EACH, _ALL = 20, 1000  # issues that are kept, of one rule and in all; the others are counted


class Trip:
    """``observe``: issues are noted only."""

    def __init__(self, judge: Judge, tree: ProcessTree, watched: Watched, observe: bool) -> None:
        self._judge, self._tree, self._watched, self._observe = judge, tree, watched, observe

    @property
    def open(self) -> bool:
        """Whether the run is to be halted."""
        return self._watched.issue is not None

    def found(self, issues: Sequence[Issue], read_at: float | None = None, halt: bool = False) -> None:
        """Note issues; the first one freezes all, unless we only observe (``halt``: even then).

        ``read_at`` is when its line was read (monotonic), None for now.
        """
        if not issues:
            return
        watched = self._watched
        if watched.issue is None and (halt or not self._observe):
            watched.issue = issues[0]
            watched.read_at = read_at or time.monotonic()
            if self._tree.freeze_cgroup(FREEZE):
                watched.reaction_seconds = time.monotonic() - watched.read_at
            watched.before = self._before(issues[0])
        for issue in issues:
            number = watched.found[issue.rule] = watched.found.get(issue.rule, 0) + 1
            if number <= _EACH and len(watched.issues) < _ALL:
                watched.issues.append(issue)

    def _before(self, issue: Issue) -> list[Line]:
        if issue.line_number:
            lines = self._judge.context(CONTEXT, until=issue)
            if lines and lines[-1].number == issue.line_number:
                return lines
        return self._judge.context(CONTEXT)
