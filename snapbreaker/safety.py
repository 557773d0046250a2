"""After a command that nothing tripped: the caller's health checks, and the caller's own word."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from snapbreaker import commands
from snapbreaker.checkpoint.record import Record
from snapbreaker.checkpoint.states import State
from snapbreaker.errors import CheckpointError, SnapbreakerError
from snapbreaker.issue import Issue, IssueType
from snapbreaker.signals import Interrupted, interruptible

if TYPE_CHECKING:
    from snapbreaker.monitor.watched import RunSpec

CHECK_SECONDS = 60.0
POLL_SECONDS = 0.1
ANSWER = "answered"


def health_issue(checks: Sequence[str], spec: RunSpec) -> Issue | None:
    """Run each check with ``/bin/sh -c``; the first that fails, or takes over a minute, is the issue."""
    for check in checks:
        try:
            with interruptible():
                commands.run(["/bin/sh", "-c", check], cwd=spec.cwd, timeout=CHECK_SECONDS)
        except SnapbreakerError as error:
            return Issue(
                IssueType.CHECK, f"the health check {check!r} failed: {error}", "check", check, time=time.time()
            )
        except Interrupted as stop:
            return _interrupted(stop, "the health checks")
    return None


def confirmed(record: Record, seconds: float) -> Issue | None:
    """Wait for `snapbreaker confirm`; an issue when it does not come within ``seconds``."""
    deadline = time.monotonic() + seconds
    issue = Issue(IssueType.TIMEOUT, f"not confirmed within {seconds:g} s", "confirm", time=time.time())
    try:
        with interruptible():
            while (left := deadline - time.monotonic()) > 0:
                if (record.path / ANSWER).exists():
                    return None
                time.sleep(min(POLL_SECONDS, left))
    except Interrupted as stop:
        issue = _interrupted(stop, "the wait for confirmation")
    return replace(issue, time=time.time()) if _answer(record) else None


def confirm(record: Record) -> None:
    """Say that the run of ``record`` may stay. Raises CheckpointError when nobody waits for that (any more)."""
    if record.state is not State.CONFIRMING or not record.owned():
        raise CheckpointError(f"checkpoint {record.id} does not wait for confirmation: it is {record.state}")
    if not _answer(record):
        raise CheckpointError(f"checkpoint {record.id} was confirmed already, or its time is over")


def _answer(record: Record) -> bool:
    """Whether we are the first to answer: the one who confirms, or the one who no longer waits for it."""
    try:
        os.close(os.open(record.path / ANSWER, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    except OSError as error:
        raise CheckpointError(
            f"cannot write the answer into {record.path}: {error.strerror}", "make space there"
        ) from error
    return True


def _interrupted(stop: Interrupted, during: str) -> Issue:
    reason = f"{stop} during {during}"
    return Issue(IssueType.INTERRUPTED, reason, "signal", signal=stop.number, time=time.time())
