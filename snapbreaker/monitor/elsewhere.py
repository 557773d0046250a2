"""What the lookout tells (logs, the journal, units), on its way through the monitor."""

from __future__ import annotations

from collections.abc import Sequence

from snapbreaker.issue import Issue
from snapbreaker.monitor.echoes import Echoes
from snapbreaker.monitor.judge import Judge
from snapbreaker.monitor.relays import Relays
from snapbreaker.monitor.watched import OutputSink, Watched
from snapbreaker.sources.lookout import Lookout
from snapbreaker.sources.messages import Kind, Message

_ONE_TURN = 4  # messages that are taken in one turn: the command's own output comes first

_LATE = "logs and units were not followed to the end: that took too long"


class Elsewhere:
    """``lookout`` None: there is nothing to be told."""

    def __init__(
        self, lookout: Lookout | None, judge: Judge, relays: Relays, sinks: Sequence[OutputSink], watched: Watched
    ) -> None:
        self._lookout, self._judge, self._relays, self._sinks = lookout, judge, relays, sinks
        self._watched = watched
        self._echoes = Echoes(judge.has_printed)
        self._told: set[str] = set()  # the sources that are not quiet
        self.heard = False  # whether the last turn brought any output

    @property
    def fd(self) -> int | None:
        return None if self._lookout is None or self._lookout.gone else self._lookout.fd

    def take(self) -> list[Issue]:
        """Judge what was told, and pass it on."""
        issues: list[Issue] = []
        self.heard = False
        for _ in range(_ONE_TURN):
            if self._lookout is None or self._lookout.gone or (message := self._lookout.take()) is None:
                break
            issues += self._heard(message)
        return issues

    def ripe(self) -> list[Issue]:
        return self._echoes.ripe()

    def deadline(self) -> float | None:
        """Monotonic time at which ``ripe`` or ``is_over`` has another answer."""
        ends = (self._echoes.deadline(), self._lookout.deadline() if self._lookout else None)
        return min((end for end in ends if end is not None), default=None)

    def is_over(self) -> bool:
        """Ask for what was written before the command's end; whether all of it was told."""
        if self._lookout is None:
            return True
        self._lookout.catch_up()
        if self._lookout.gave_up and _LATE not in self._watched.warnings:
            self._watched.warnings.append(_LATE)
        return self._lookout.caught_up

    def last(self) -> list[Issue]:
        """What is left at the end, lines without their end too."""
        unfinished = [issue for source in sorted(self._told) for issue in self._judge.close(source)]
        return unfinished + self._echoes.ripe(ended=True)

    def _heard(self, message: Message) -> list[Issue]:
        if message.kind is Kind.ISSUE:
            issue = message.issue
            return [] if issue.line and self._judge.allows(issue.line) else [issue]
        if message.kind is Kind.WARNING:
            self._watched.warnings.append(message.data.decode("utf-8", "replace"))
        if message.kind is Kind.QUIET:
            return self._quiet(message)
        if message.kind is not Kind.OUTPUT:
            return []
        self.heard = True
        self._told.add(message.name)
        issues = self._judge.feed(message.name, message.data)
        self._relays.tell(message.name, message.data)
        self._record(message)
        return issues

    def _quiet(self, message: Message) -> list[Issue]:
        issues = self._judge.feed(message.name, message.data)
        if self._judge.follows(message.name):
            self.heard = True
            self._record(message)
            self._echoes.add(issues)
        return []

    def _record(self, message: Message) -> None:
        for sink in self._sinks:
            sink.output(message.name, message.data)
