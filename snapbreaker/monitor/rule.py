"""One rule, and a pack of them: what the pattern of a line means."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import cache

from snapbreaker.dataclass import dataclass
from snapbreaker.issue import IssueType


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
        return self in (RuleType.ALLOW, RuleType.EXPECT)


@cache
def compiled(source: str, flags: int) -> re.Pattern[str]:
    """As ``re.compile``, whose own cache forgets. Raises re.error, OverflowError, RecursionError."""
    return re.compile(source, flags)


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

    @property
    def pattern(self) -> re.Pattern[str]:
        return compiled(self.source, self.flags)

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
        return bool(self.pattern.fullmatch(text) if self.type.whole_line else self.pattern.search(text))


@dataclass(frozen=True, slots=True)
class Pack:
    """The rules of one tool.

    ``commands`` are the programs for which it is chosen; ``origin`` says where it was read from.
    """

    name: str
    origin: str
    rules: tuple[Rule, ...]
    commands: frozenset[str] = frozenset()
    description: str = ""
