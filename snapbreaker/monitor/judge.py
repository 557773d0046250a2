"""Reads the sources of a run as they come and says which line is an issue."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Set
from typing import BinaryIO

from snapbreaker.issue import Issue, IssueType
from snapbreaker.monitor.history import History
from snapbreaker.monitor.lines import BLOCK, Block, Line, LineReader, decode, line_feeds, pieces, segments
from snapbreaker.monitor.rule import Rule
from snapbreaker.monitor.rules import Contexts, RuleSet, Verdict
from snapbreaker.output_log import STREAMS

LOOK = 0.1  # seconds between two looks at what runs, while there is output
# Seconds that a partial line waits for its end before it is judged as it stands: that of "Errors: 0" may take long
# to count, and a program whose output is a pipe prints 4 KiB at a time, cut wherever they end.
PATIENCE = 5.0
_REHEARSAL = b"error: what is done the first time takes longer\n"


class Judge:
    """Judges every line of every source once it is complete, and a partial one (a prompt) after PATIENCE seconds.

    Sources are told apart by name and begin with the first ``feed``. Memory is bounded, whatever is fed.
    ``programs`` tells the names of the programs that run now; it is asked every LOOK seconds of output and before
    a line trips, so that the pack of a tool that a script has started judges its lines. No other system call is
    made but reading the clock.

    ``heard`` is told of every line, and what decides it. ``hits``: how many lines each rule decided, by the rule's
    origin and name.
    """

    def __init__(
        self,
        rules: RuleSet,
        *,
        strict: bool = False,
        programs: Callable[[], Iterable[str]] = tuple,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        heard: Callable[[Line, Verdict], None] | None = None,
    ) -> None:
        self.hits = Counter[tuple[str, str]]()
        self._heard = heard
        self.programs = programs
        self._looked, self._fresh = 0.0, False  # since this ``feed`` began
        self._rules, self._strict = rules, strict
        self._now, self._monotonic = now, monotonic
        self._streams: dict[str, _Stream] = {}
        self._history = History()
        self._rehearsed = False

    @property
    def rules(self) -> RuleSet:
        """Those that judge now: of all tools that have shown themselves."""
        return self._rules

    @property
    def lines(self) -> dict[str, int]:
        """How many lines each source has completed."""
        return {name: stream.reader.number - 1 for name, stream in self._streams.items()}

    def prepare(self) -> bool:
        """Do a part (less than a millisecond) of what the first lines would wait for; False when all is done."""
        if self._rules.prepare():
            return True
        if self._rehearsed:
            return False
        self._rehearsed = True
        Judge(self._rules).feed("stdout", _REHEARSAL)
        return True

    def feed(self, source: str, data: bytes) -> list[Issue]:
        """Judge the lines that ``data`` completes."""
        stream = self._stream(source)
        self._fresh = False
        if self._monotonic() - self._looked >= LOOK:
            self._look()
        issues: list[Issue] = []
        for start in range(0, len(data), BLOCK):
            block = stream.reader.feed(data[start : start + BLOCK])
            if block:
                issues += self._judge(stream, block)
        stream.waits(self._monotonic())
        return issues

    def settle(self) -> list[Issue]:
        """Judge partial lines that have waited long enough."""
        now = self._monotonic()
        issues: list[Issue] = []
        for stream in self._streams.values():
            if stream.due is not None and stream.due <= now:
                stream.due = None
                issues += self._judge_partial(stream)
        return issues

    def deadline(self) -> float | None:
        """Monotonic time at which ``settle`` has something to do."""
        return min((stream.due for stream in self._streams.values() if stream.due is not None), default=None)

    def close(self, source: str) -> list[Issue]:
        """The source has ended: judge what it left without a line feed."""
        stream = self._stream(source)
        stream.due = None
        block = stream.reader.close()
        return self._judge(stream, block) if block else []

    def context(self, count: int = 10, *, until: Issue | None = None) -> list[Line]:
        """The last ``count`` lines over all sources, oldest first; ``until``: up to the line of that issue."""
        partial = [stream.partial_line(self._now()) for stream in self._streams.values() if not until]
        shown = [line for line in partial if line.text]
        return (self._history.last(count, until) + shown)[-count:] if count else []

    def following(self, issue: Issue, count: int = 10) -> list[Line]:
        """At most ``count`` lines that were read after the issue's line."""
        return self._history.after(issue, count)

    def has_printed(self, text: str) -> bool:
        """Whether the command's own output has lately shown this line."""
        return self._history.has(text, STREAMS)

    def follows(self, log: str) -> bool:
        """Whether a pack that judges this command names the log file as one that tells of it."""
        return any(log in pack.logs for pack in self._rules.packs)

    def allows(self, text: str) -> bool:
        """Whether a rule says that this line is fine."""
        return self._rules.allows(text) is not None

    def _stream(self, source: str) -> _Stream:
        if source not in self._streams:
            self._streams[source] = _Stream(source)
        return self._streams[source]

    def _judge(self, stream: _Stream, block: Block) -> list[Issue]:
        now = self._now()
        self._history.add(stream.source, block, now)
        issues: list[Issue] = []
        number, counted = block.first, 0
        rules = None
        while rules is not self._rules:  # a line that brings in a pack is judged by it, and so are the next ones
            rules = self._rules
            for start, end in self._spans(block.data, counted):
                number += line_feeds(block.data, counted, start)
                counted = start
                issues += self._judge_segment(stream, number, block.data[start:end], now)
                if rules is not self._rules:
                    counted = end
                    break
        return issues

    def _spans(self, data: bytes, start: int) -> Iterable[tuple[int, int]]:
        """The segments from ``start`` on that some rule could match."""
        rest = data[start:]
        every = self._strict or self._rules.always or self._heard
        if not every and (not rest or rest.isspace()):  # so a pack that the last line brings has not to scan
            return ()
        found = segments(rest) if every else self._rules.prefilter.spans(rest)
        return ((start + a, start + b) for a, b in found)

    def _look(self) -> None:
        self._looked, self._fresh = self._monotonic(), True
        self._rules = self._rules.for_programs(self.programs())

    def _judge_partial(self, stream: _Stream) -> list[Issue]:
        data, now = stream.reader.partial_data(), self._now()
        number = stream.reader.number
        found = [self._judge_segment(stream, number, data[a:b], now, whole=False) for a, b in segments(data)]
        return [issue for issues in found for issue in issues]

    def _judge_segment(
        self, stream: _Stream, number: int, segment: bytes, now: float, *, whole: bool = True
    ) -> Iterable[Issue]:
        """Not ``whole``: the line may go on, so nobody can say yet that it is unexpected."""
        for piece in pieces(segment):
            text = decode(piece)
            verdict, contexts = self._verdict(stream, number, text, piece)
            rule, expected = verdict.issue, None
            if self._strict and whole and text and not rule:
                expected = self._rules.expects(text, contexts)
            late = self._rules.patience.take()
            if not rule and (rule := next((one for one in late if one.type.trips), None)):
                verdict = Verdict(rule)
            for decided in (rule, verdict.passed, expected):
                if decided and stream.is_new(number, f"hit {decided.full_name}"):
                    self.hits[decided.origin, decided.name] += 1
            if self._heard:
                self._heard(Line(stream.source, number, text, now), verdict)
            if rule and stream.is_new(number, rule.full_name):
                yield _issue(rule, stream.source, number, text, now, self._note(text, late))
            elif self._strict and whole and text and not (rule or expected) and stream.is_new(number, "strict"):
                yield _unexpected(stream.source, number, text, now, self._note(text, late))

    def _note(self, text: str, late: Iterable[Rule]) -> str:
        """What of a user's rules makes a difference to an issue."""
        lapsed = self._rules.lapsed(text)
        notes = [f"the rule {lapsed.full_name}, which allowed it, expired on {lapsed.expires}"] if lapsed else []
        notes += [f"the pattern of the rule {rule.full_name} takes too long on it: rewrite it" for rule in late]
        return f" ({'; '.join(notes)})" if notes else ""

    def _verdict(self, stream: _Stream, number: int, text: str, piece: bytes) -> tuple[Verdict, Set[str]]:
        """What the line trips by the packs of all tools that run now or that it tells of."""
        needles = self._rules.prefilter.needles(piece)
        before, self._rules = self._rules, self._rules.for_line(text, needles)
        if self._rules is not before:
            needles = self._rules.prefilter.needles(piece)
        contexts = stream.contexts.at(number, text, needles, self._rules.contexts)
        verdict = self._rules.judge(text, needles, contexts)
        if verdict.issue and not self._fresh:
            before = self._rules
            self._look()
            if self._rules is not before:
                return self._rules.judge(text, self._rules.prefilter.needles(piece), contexts), contexts
        return verdict, contexts


class _Stream:
    """One source: its reader, when its partial line is due, and what its current line was already charged with."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.reader = LineReader()
        self.contexts = Contexts()
        self.due: float | None = None
        self._charged: tuple[int, set[str]] = (0, set())

    def waits(self, now: float) -> None:
        self.due = now + PATIENCE if self.reader.has_partial else None

    def is_new(self, number: int, rule: str) -> bool:
        """False when this line was charged with the rule before: as a partial line, or in an overlapping piece."""
        if self._charged[0] != number:
            self._charged = (number, set())
        charged = self._charged[1]
        if rule in charged:
            return False
        charged.add(rule)
        return True

    def partial_line(self, now: float) -> Line:
        return Line(self.source, self.reader.number, self.reader.partial(), now)


def check_log(
    rules: RuleSet, stream: BinaryIO, *, source: str, status: int = 0, strict: bool = False
) -> Issue | None:
    """Judge a recorded log exactly as a run would have; the first issue, or None.

    ``status`` is the exit status that the command had. Issues have no time of their own: ``time`` is 0.
    """
    pieces = ((source, data) for data in iter(lambda: stream.read(BLOCK), b""))
    return check_output(rules, pieces, source=source, status=status, strict=strict)


def check_output(
    rules: RuleSet, pieces: Iterable[tuple[str, bytes]], *, source: str = "", status: int = 0, strict: bool = False
) -> Issue | None:
    """The same of what several sources said, in its order; ``source`` is whose the exit status is."""
    judge = Judge(rules, strict=strict, now=lambda: 0.0)
    for name, data in pieces:
        if issues := judge.feed(name, data):
            return issues[0]
    for name in list(judge.lines):
        if issues := judge.close(name):
            return issues[0]
    if status:
        return Issue(
            IssueType.EXIT, f"the command ended with status {status}", "exit", source=source, status=status
        )
    return None


def _issue(rule: Rule, source: str, number: int, text: str, now: float, note: str) -> Issue:
    return Issue(rule.issue_type, rule.reason + note, rule.full_name, text, source, number, now)


def _unexpected(source: str, number: int, text: str, now: float, note: str) -> Issue:
    return Issue(
        IssueType.UNEXPECTED,
        "strict mode: no success pattern expects this line" + note,
        "strict",
        text,
        source,
        number,
        now,
    )
