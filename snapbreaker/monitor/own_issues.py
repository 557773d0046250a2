"""Issues that no line tells: silence, time, signals, the command's end."""

from __future__ import annotations

import signal
import time

from snapbreaker.issue import Issue, IssueType
from snapbreaker.linux.process import process


def silence(pid: int, idle: float) -> Issue:
    """After ``idle`` seconds. ``pid``, the command, may be stopped: by itself, or since it waits for a terminal in
    the background (SIGTTIN).
    """
    found = process(pid)
    stopped = ", and the command is stopped" if found and found.stopped else ""
    return Issue(IssueType.TIMEOUT, f"no output for {idle:g} s{stopped}", "idle", time=time.time())


def overtime(timeout: float) -> Issue:
    return Issue(IssueType.TIMEOUT, f"the run took longer than {timeout:g} s", "timeout", time=time.time())


def interrupt(number: int) -> Issue:
    return Issue(
        IssueType.INTERRUPTED, f"interrupted by {signal_name(number)}", "signal", time=time.time(), signal=number
    )


def unread(number: int) -> Issue:
    """Nobody reads our output any more: a terminal hung up (SIGHUP), a pipe was closed (SIGPIPE)."""
    what = "the terminal hung up" if number == signal.SIGHUP else "the reader of our output is gone"
    reason = f"{what} ({signal_name(number)}); --on-hangup continue goes on without"
    return Issue(IssueType.INTERRUPTED, reason, "hangup", time=time.time(), signal=number)


def failure(status: int | None, number: int | None) -> Issue:
    """The command ended with ``status``, or by signal ``number``."""
    how = f"ended with status {status}" if number is None else f"was killed by {signal_name(number)}"
    return Issue(IssueType.EXIT, f"the command {how}", "exit", time=time.time(), status=status, signal=number or 0)


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
