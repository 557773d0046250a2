"""One rule, and a pack of them: what the pattern of a line means."""

from __future__ import annotations

import re
import warnings
from datetime import date
from enum import StrEnum
from functools import cache

from snapbreaker.dataclass import dataclass
from snapbreaker.issue import IssueType
from snapbreaker.monitor import patterns
from snapbreaker.monitor.runaway import Reach

_FEW = 24  # alternatives that are looked for sooner than most patterns are tried


class RuleType(StrEnum):
    """What a match means: an issue of that type, or one of the three kinds of innocence."""

    ERROR = "ERROR"
    WARNING = "WARNING"
    SKIP = "SKIP"
    TIMEOUT = "TIMEOUT"
    UNEXPECTED = "UNEXPECTED"
    ALLOW = "allow"  # the whole line is fine
    MASK = "mask"  # the matched span is blanked, the rest is judged
    EXPECT = "expect"  # strict mode: a line of success

    @property
    def trips(self) -> bool:
        return self not in (RuleType.ALLOW, RuleType.MASK, RuleType.EXPECT)

    @property
    def whole_line(self) -> bool:
        """Whether the pattern must match all of the line."""
        return self is _ALLOW or self is _EXPECT


_ALLOW, _EXPECT = RuleType.ALLOW, RuleType.EXPECT


@cache
def compiled(source: str, flags: int) -> re.Pattern[str]:
    """As ``re.compile``, whose own cache forgets. Raises re.error, OverflowError, RecursionError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(source, flags)


@cache
def _required(source: str, flags: int) -> tuple[str, ...]:
    found = patterns.needles(source, flags) or ()
    return tuple(sorted(found, key=len)) if len(found) <= _FEW else ()


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern with its meaning.

    ``phrases`` of whole words, as ``words_of`` makes them, and ``literals``, which may lie inside a longer word,
    are the prefilter: a line with none of them is not tried. Both empty: every line is. ``source`` and ``flags``
    are the pattern's, which is compiled when it is first wanted.
    """

    pack: str
    name: str
    type: RuleType
    source: str
    flags: int
    reason: str
    phrases: frozenset[bytes] = frozenset()
    literals: frozenset[bytes] = frozenset()
    link: str = ""
    examples: tuple[str, ...] = ()
    contexts: frozenset[str] = frozenset()  # PACK/NAME; the rule counts only while one of them is on; none: always
    reach: Reach = Reach()
    origin: str = ""  # the file that it was read from
    line: int = 0  # on which it begins there
    added: date | None = None
    expires: date | None = None  # the last day on which it counts
    by: str = ""

    @property
    def pattern(self) -> re.Pattern[str]:
        return compiled(self.source, self.flags)

    def prepare(self) -> None:
        """Do what the first line that it is tried on would wait for."""
        _ = self.pattern
        if not self.type.trips:
            _ = self.required

    @property
    def required(self) -> tuple[str, ...]:
        """One of these is in the lower case of any text that the pattern matches; empty where none is known."""
        return _required(self.source, self.flags)

    @property
    def full_name(self) -> str:
        return f"{self.pack}/{self.name}"

    @property
    def issue_type(self) -> IssueType:
        return IssueType(self.type.value)

    @property
    def needles(self) -> frozenset[bytes]:
        return self.phrases | self.literals

    def matches(self, text: str) -> bool:
        """Whether it says something about a line. Of one that is longer than its reach, see ``Reach``."""
        pattern, short = compiled(self.source, self.flags), len(text) <= self.reach.whole
        if self.type.whole_line:
            return short and pattern.fullmatch(text) is not None
        if short:
            return pattern.search(text) is not None
        return any(self.pattern.search(text, start, end) for start, end in self.reach.parts(len(text)))

    def has_expired(self, today: date) -> bool:
        return self.expires is not None and self.expires < today


@dataclass(frozen=True, slots=True)
class Trigger:
    """A pattern that changes what is judged: the banner of a tool, the begin or the end of a context.

    ``phrases`` and ``literals`` are the prefilter, as those of a rule, and never both empty. ``built_in``: it came
    with snapbreaker.
    """

    source: str
    phrases: frozenset[bytes] = frozenset()
    literals: frozenset[bytes] = frozenset()
    built_in: bool = True

    @property
    def needles(self) -> frozenset[bytes]:
        return self.phrases | self.literals

    def matches(self, text: str) -> bool:
        return bool(compiled(self.source, 0).search(text))


@dataclass(frozen=True, slots=True)
class Context:
    """A part of a source's lines: from one that matches ``begin`` to the next that matches ``end``, both within.

    It ends by itself ``lines`` lines after its begin.
    """

    pack: str
    name: str
    begin: Trigger
    end: Trigger
    lines: int

    @property
    def full_name(self) -> str:
        return f"{self.pack}/{self.name}"


@dataclass(frozen=True, slots=True)
class Verbose:
    """How ``commands`` are told to say more: by one of ``switches`` (the first one is proposed), or by ``env``."""

    commands: frozenset[str]
    switches: tuple[str, ...]
    env: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pack:
    """The rules of one tool.

    ``commands`` are the programs for which it is chosen, ``signs`` the lines by which its tool is recognised;
    ``origin`` says where it was read from. ``logs``: files to which the tool writes what it may not print.
    """

    name: str
    origin: str
    rules: tuple[Rule, ...]
    commands: frozenset[str] = frozenset()
    description: str = ""
    signs: tuple[Trigger, ...] = ()
    contexts: tuple[Context, ...] = ()
    logs: tuple[str, ...] = ()
    verbose: tuple[Verbose, ...] = ()
