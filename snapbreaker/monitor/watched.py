"""What the monitor is told, whom it asks, and what it hands back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from snapbreaker.issue import Issue
from snapbreaker.monitor.process_tree import FreezeReport, KillReport


class Line(Protocol):
    """One judged line, as the judge keeps it for the report. ``number`` counts from 1 within its source."""

    @property
    def source(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def time(self) -> float: ...


class Judge(Protocol):
    """What the monitor needs of ``snapbreaker.monitor.judge.Judge``. None of it may touch a file."""

    @property
    def lines(self) -> Mapping[str, int]: ...
    def feed(self, source: str, data: bytes) -> list[Issue]: ...
    def settle(self) -> list[Issue]: ...
    def deadline(self) -> float | None: ...
    def close(self, source: str) -> list[Issue]: ...
    def context(self, count: int = 10) -> Sequence[Line]: ...


class OutputSink(Protocol):
    """Sees all output in the order it was read, after it was judged (a record's log). Must not block for long."""

    def output(self, source: str, data: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One command and how it is watched. Times are seconds.

    ``pty`` None: a terminal for the command when our standard input and output are terminals. ``idle`` None or 0:
    silence is no issue. ``timeout``: of the whole run; time that the operator had it stopped does not count.
    ``grace``: after the freeze, how long SIGTERM may work before SIGKILL. ``observe``: record issues, halt nothing.
    ``ignore_hangup``: SIGHUP is no issue (a lost terminal).
    """

    argv: Sequence[str]
    cwd: str
    env: Mapping[str, str]
    pty: bool | None = None
    idle: float | None = 30.0
    timeout: float | None = None
    grace: float = 0.0
    observe: bool = False
    ignore_hangup: bool = False


@dataclass(slots=True)
class Watched:
    """How a run went. ``started`` and ``ended`` are seconds since the epoch.

    ``issue`` is what tripped the breaker (None: nothing did, or only observed), ``issues`` all that were seen, the
    one that tripped first. Of ``status`` and ``signal`` one tells how the command ended by itself; both None: it
    was halted. ``before`` ends with the line that tripped, ``after`` is what came later. ``reaction_seconds``: from
    the line being read until the run's cgroup stood still; ``dead_seconds``: until no process was left.
    ``dropped``: octets that nobody read from our own standard output or error. ``left``: (pid, comm) of processes
    that a successful command left running.
    """

    issue: Issue | None = None
    issues: list[Issue] = field(default_factory=list)
    status: int | None = None
    signal: int | None = None
    before: list[Line] = field(default_factory=list)
    after: list[Line] = field(default_factory=list)
    freeze: FreezeReport | None = None
    kill: KillReport | None = None
    started: float = 0.0
    ended: float = 0.0
    lines: dict[str, int] = field(default_factory=dict)
    octets: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    reaction_seconds: float | None = None
    dead_seconds: float | None = None
    priority: str = "normal"
    left: list[tuple[int, str]] = field(default_factory=list)
