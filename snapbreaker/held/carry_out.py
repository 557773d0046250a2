"""Carrying out what was recorded, by the machine's own programs and its real init, after the commit."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from snapbreaker import commands
from snapbreaker.errors import SnapbreakerError, ToolError
from snapbreaker.held.action import Action
from snapbreaker.held.health import LONGEST, Health
from snapbreaker.held.log import planned
from snapbreaker.held.noted import Noted
from snapbreaker.issue import Issue, IssueType
from snapbreaker.linux.systemd import Manager, SystemdError, booted
from snapbreaker.progress import Progress, silent
from snapbreaker.signals import Interrupted, interruptible

SETTLE = 3.0  # s in which nothing may fail after the last action
_NOT_LOADED = 5  # of systemctl(1)


def carry_out(
    actions: Sequence[Action],
    directory: str,
    *,
    reload: bool = False,
    settle: float = SETTLE,
    progress: Progress = silent,
) -> Issue | None:
    """Do ``planned(actions, reload)`` in order; the first that goes wrong is the issue, and the last that is done.

    ``reload``: the change has unit files, so systemd is to read them also if nobody asked for it. After the last
    action no unit may fail, or be started again after it failed, for ``settle`` seconds. ``progress`` is told how
    many actions are done. To be called again, with the same arguments, after a crash: what was done is noted in
    ``directory`` (``noted.py``). Nothing is left to do once all was done, nor after another boot: systemd has
    brought its units up by what was committed.

    Never raises what is a SnapbreakerError, OSError or a signal to stop: each is an issue.
    """
    try:
        with interruptible():
            return _carry_out(planned(actions, reload), directory, settle, progress)
    except Interrupted as stop:
        reason = f"{stop} while services were started and stopped"
        return Issue(IssueType.INTERRUPTED, reason, "signal", signal=stop.number, time=time.time())
    except (SnapbreakerError, OSError, ValueError, TypeError) as error:
        return _issue(f"services could not be started and stopped: {error}")


def _carry_out(plan: Sequence[Action], directory: str, settle: float, progress: Progress) -> Issue | None:
    noted = Noted.of(directory)
    if not plan or (noted and (noted.over or not noted.of_this_boot)):
        return None
    health = Health.connect() if booted() else None
    try:
        if noted is None:
            noted = Noted.new(directory, health.bad() if health else [])
        if health:
            health.before = frozenset(noted.bad)
        for number, action in list(enumerate(plan))[noted.done :]:
            if action.repeatable or noted.begun <= number:
                noted.begin(number)
                later = plan[number + 1 :]
                issue = _by_systemd(action, later, health) if health else _by_script(action)
                if issue:
                    return issue
            noted.finish(number)
            progress("services", number + 1)
        if health and (issue := health.settled(plan, settle)):
            return issue
        noted.end()
        return None
    finally:
        if health:
            health.close()


def _by_systemd(action: Action, later: Sequence[Action], health: Health) -> Issue | None:
    if action.asks_script:
        return _by_script(action)
    if action.program == "systemd-tmpfiles":
        _make_runtime_files(action)
        return None
    if action.reloads:
        if action.verb == "daemon-reexec":
            health.manager.reexecute()
        else:
            health.manager.reload()
        return None
    if action.starts and action.units and all(_has_gone(health.manager, unit, later) for unit in action.units):
        return None
    done = _run(action)
    if action.stops:
        health.forget_removed(action.units)
    if isinstance(done, Issue):
        return done
    if action.verb == "reset-failed":
        return None  # of a unit that is not in memory: it has not failed then
    if done.status == 0 or (done.status == _NOT_LOADED and not action.starts and not health.running(action.units)):
        return None
    return health.issue(action, done.stderr)


def _by_script(action: Action) -> Issue | None:
    done = _run(action)
    if isinstance(done, Issue):
        return done
    return _issue(f"`{action}` ended with status {done.status}: {_last(done.stderr)}") if done.status else None


def _run(action: Action) -> commands.Completed | Issue:
    try:
        return commands.run(action.argv, timeout=LONGEST, check=False)
    except ToolError as error:
        kind = IssueType.TIMEOUT if error.status == commands.TIMED_OUT else IssueType.CHECK
        return _issue(f"`{action}` did not work: {error.message}", kind)


def _make_runtime_files(action: Action) -> None:
    """In /run only: what it did elsewhere was committed. What it fails to make is missed by those who need it."""
    limited = any(word.startswith("--prefix") for word in action.words)
    only = [] if limited else ["--prefix=/run", "--prefix=/var/run"]
    commands.run([action.program, *only, *action.words], timeout=LONGEST, check=False)


def _has_gone(manager: Manager, unit: str, later: Sequence[Action]) -> bool:
    """Whether the unit was removed again by the same run, which has stopped it then: there is nothing to start."""
    if not any(each.stops and unit in each.units for each in later):
        return False
    try:
        facts = manager.properties(unit)
    except SystemdError:
        return False
    path = facts.get("FragmentPath") or ""
    return facts.get("LoadState") == "not-found" or bool(path and not os.path.exists(path))


def _issue(reason: str, kind: IssueType = IssueType.CHECK) -> Issue:
    return Issue(kind, reason, "services", time=time.time())


def _last(text: str) -> str:
    return (text.strip() or "no output").splitlines()[-1]
