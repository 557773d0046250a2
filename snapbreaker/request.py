"""All that one run was asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import field

from snapbreaker.checkpoint.retention import Retention
from snapbreaker.dataclass import dataclass
from snapbreaker.monitor.rules import RuleSet
from snapbreaker.monitor.watched import RunSpec
from snapbreaker.sandbox.sandbox import Options


@dataclass(frozen=True, slots=True)
class RunRequest:
    """As `run` was given it. Times are seconds."""

    argv: Sequence[str]
    scope: Sequence[str]
    rules: RuleSet
    system: bool = False
    keep: Sequence[str] = ()
    foreign: str = "restore"
    backend: str | None = None
    idle: float | None = 30.0
    activity: bool = False
    hard: float | None = 600.0
    timeout: float | None = None
    grace: float = 0.0
    on_hangup: str = "rollback"
    logs: Sequence[str] = ()
    journal: bool = False
    units: Sequence[str] = ()  # whose journal is read; none: of those that the run touches
    strict: bool = False
    observe: bool = False
    checks: Sequence[str] = ()
    confirm: float | None = None
    pty: bool | None = None
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    invocation: Sequence[str] = ("snapbreaker", "run")  # as typed, without the command
    retention: Retention = field(default_factory=Retention)
    sandbox: Options = field(default_factory=Options)
    snapshot_size: int = 0  # bytes, where a snapshot needs a size; 0: the backend decides
    hold: bool = False  # leave the change in its sandbox

    def specification(self) -> RunSpec:
        """What of it the monitor is told."""
        return RunSpec(
            argv=tuple(self.argv),
            cwd=self.cwd or os.getcwd(),
            env={**os.environ, **self.env},
            pty=self.pty,
            idle=self.idle,
            activity=self.activity,
            hard=self.hard,
            timeout=self.timeout,
            grace=self.grace,
            on_hangup=self.on_hangup,
            observe=self.observe,
        )
