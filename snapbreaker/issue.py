"""What trips the breaker."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import Any

from snapbreaker.dataclass import dataclass


class IssueType(StrEnum):
    ERROR = "ERROR"
    WARNING = "WARNING"
    SKIP = "SKIP"
    TIMEOUT = "TIMEOUT"
    UNEXPECTED = "UNEXPECTED"
    EXIT = "EXIT"
    CHECK = "CHECK"
    INTERRUPTED = "INTERRUPTED"


@dataclass(frozen=True, slots=True)
class Issue:
    """One detection.

    ``line`` is the exact line as judged (decoded with replacement, no ANSI codes), empty where there is none
    (silence, exit status). ``source`` is ``stdout``, ``stderr``, ``pty``, a log file's path or ``journal:UNIT``;
    ``line_number`` counts from 1 within its source. ``rule`` is ``PACK/NAME`` of the rule that matched, or the
    name of the built-in check (``idle``, ``exit``, ``signal`` …). ``reason`` is a sentence for a person.
    ``time`` is seconds since the epoch.
    """

    type: IssueType
    reason: str
    rule: str
    line: str = ""
    source: str = ""
    line_number: int = 0
    time: float = 0.0
    signal: int = 0
    status: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Issue:
        return cls(**{**data, "type": IssueType(data["type"])})
