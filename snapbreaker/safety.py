"""After a command that nothing tripped: the caller's health checks, and the caller's own word."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from snapbreaker import commands
from snapbreaker.checkpoint.record import Record
from snapbreaker.errors import SnapbreakerError
from snapbreaker.issue import Issue, IssueType
from snapbreaker.signals import Interrupted, interruptible

if TYPE_CHECKING:
    from snapbreaker.monitor.watched import RunSpec

CHECK_SECONDS = 60.0
POLL_SECONDS = 0.1


def health_issue(checks: Sequence[str], spec: RunSpec) -> Issue | None:
    """Run each check with ``/bin/sh -c``; the first that fails, or takes over a minute, is the issue."""
    for check in checks:
        try:
            with interruptible():
                commands.run(["/bin/sh", "-c", check], cwd=spec.cwd, timeout=CHECK_SECONDS)
        except SnapbreakerError as error:
            return Issue(IssueType.CHECK, f"the health check failed: {error}", "check", check, time=time.time())
        except Interrupted as stop:
            return _interrupted(stop, "the health checks")
    return None


def confirmed(record: Record, seconds: float) -> Issue | None:
    """Wait for `snapbreaker confirm`; an issue when it does not come within ``seconds``."""
    deadline = time.monotonic() + seconds
    try:
        with interruptible():
            while time.monotonic() < deadline:
                if (record.path / "confirmed").exists():
                    return None
                time.sleep(POLL_SECONDS)
    except Interrupted as stop:
        return _interrupted(stop, "the wait for confirmation")
    return Issue(IssueType.TIMEOUT, f"not confirmed within {seconds:g} s", "confirm", time=time.time())


def confirm(record: Record) -> None:
    """Say that the run of ``record`` may stay."""
    (record.path / "confirmed").touch(mode=0o600)


def _interrupted(stop: Interrupted, during: str) -> Issue:
    reason = f"{stop} during {during}"
    return Issue(IssueType.INTERRUPTED, reason, "signal", signal=stop.number, time=time.time())
