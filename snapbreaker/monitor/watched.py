"""What the monitor is told, whom it asks, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Protocol

from snapbreaker.dataclass import dataclass
from snapbreaker.doing import Doing
from snapbreaker.issue import Issue
from snapbreaker.monitor.lines import Line
from snapbreaker.monitor.process_tree import FreezeReport, KillReport


class OutputSink(Protocol):
    """Sees all output in the order it was read, after it was judged (a record's log). Must not block for long."""

    def output(self, source: str, data: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One command and how it is watched. Times are seconds.

    ``pty`` None: a terminal for the command when our standard input and output are terminals.
    ``idle`` None or 0: silence is no issue. ``activity``: nor is it while the command computes, reads or writes,
    up to ``hard``. ``timeout``: of the whole run. While the operator has it stopped no clock runs; while the
    command has stopped itself, only ``hard`` does. ``grace``: after the freeze, how long SIGTERM may work before
    SIGKILL.
    ``observe``: record issues, halt nothing. ``on_hangup``: where SIGHUP comes or our reader goes away, roll back,
    or go on without. ``stall``: how long the command waits for a reader of ours that takes nothing.
    ``status``: what a status line on the terminal tells beside times and lines; empty: there is no such line.
    ``enter`` is called by the process that will be the command, to join namespaces; it may raise OSError.
    """

    argv: Sequence[str]
    cwd: str
    env: Mapping[str, str]
    pty: bool | None = None
    idle: float | None = 30.0
    timeout: float | None = None
    grace: float = 0.0
    observe: bool = False
    activity: bool = False
    hard: float | None = 600.0
    on_hangup: str = "rollback"
    stall: float = 30.0
    status: str = ""
    enter: Callable[[], None] | None = None


@dataclass(slots=True)
class Watched:
    """How a run went. ``started`` and ``ended`` are seconds since the epoch.

    ``issue`` is what tripped the breaker (None: nothing did, or it was only observed), ``issues`` the first that
    were seen of each rule, ``found`` how many there were, by rule.
    ``status`` or ``signal`` tells how the command ended by itself; both None: it was halted.
    ``before`` ends with the line that tripped, ``after`` is what came later.
    ``read_at`` (time.monotonic) is when the line that tripped was read, ``reaction_seconds`` from then until the
    run's cgroup stood still (without one: all its processes; None: see ``freeze``), ``dead_seconds`` until no
    process was left.
    ``dropped``: octets by source that nobody took from our own standard output or error.
    ``hits``: how many lines each rule decided, by its origin and name.
    ``left``: (pid, comm) of processes that a successful command left running.
    ``doing``: what each process was at when the run was halted for silence or time. ``warnings``: what else is to
    be told of how it was watched.
    """

    issue: Issue | None = None
    issues: list[Issue] = field(default_factory=list)
    found: dict[str, int] = field(default_factory=dict)
    hits: Mapping[tuple[str, str], int] = field(default_factory=dict)
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
    read_at: float | None = None
    reaction_seconds: float | None = None
    dead_seconds: float | None = None
    priority: str = "normal"
    left: list[tuple[int, str]] = field(default_factory=list)
    doing: list[Doing] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
