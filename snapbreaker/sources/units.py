"""Units that fail while the command runs, heard from PID 1 itself: no option is needed, and no journal.

A unit that was started during the run and has failed is an issue. It is none where the unit was to be stopped (a
stop job ended with it: many programs exit with 143 then), where it is on its way up again (a restart), or where a
timer or the like that was there before starts it at its own time. One that was up before the run, and that nobody
had asked anything of, is only told.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from snapbreaker.dataclass import dataclass
from snapbreaker.issue import Issue, IssueType
from snapbreaker.linux.systemd import Manager, SystemdError, Unit
from snapbreaker.linux.systemd_signals import Changed, JobNew, JobRemoved, Signal, Signals
from snapbreaker.system.units import FAILED, counts

SETTLE = 0.15  # s from a failure to the verdict: the end of its job, or a restart, is told behind it
LINGER = 1.0  # s after the last start in which a unit may fail, although the command has ended
RULE = "unit-failed"
_RETRY = "auto-restart"  # also auto-restart-queued: it failed, and will be started again
_DOWN = (FAILED, "deactivating", "inactive")


@dataclass(slots=True)
class _State:
    """What is known of one unit. ``asked``: a job for it began that was no automatic restart.

    ``failed_with``: the result with which it was last in a bad state. ``again``: systemd starts it again by itself
    since, so its state may be fine when its failure is judged.
    """

    active: str = "inactive"
    sub: str = "dead"
    result: str = ""
    failed_with: str = ""
    again: bool = False
    asked: bool = False
    rising: bool = False  # that job has not brought it up yet
    stopped: bool = False  # the last job was one to stop it
    due: float | None = None  # when its failure is judged
    told: bool = False

    @property
    def bad(self) -> bool:
        return self.active == FAILED or self.retried

    @property
    def retried(self) -> bool:
        return self.sub.startswith(_RETRY)


class UnitWatch:
    """Follows all units from now on. Raises SystemdError, OSError where PID 1 does not speak to us."""

    def __init__(self) -> None:
        self._signals = Signals()  # first: what changes while we ask is told
        self._manager = Manager.connect()
        units = self._manager.units()
        self._states = {name: _State(unit.active, unit.sub) for name, unit in units.items()}
        self._bad_before = {name for name, state in self._states.items() if state.bad}
        self._up_before = {name for name, unit in units.items() if unit.running}
        self._jobs: dict[int, str] = {}
        self._last_start = 0.0

    @property
    def fd(self) -> int:
        return self._signals.fd

    def touched(self, unit: str) -> bool:
        """Whether it was started, restarted or reloaded since."""
        state = self._states.get(unit)
        return state is not None and state.asked and not state.stopped

    def hear(self) -> None:
        """Take in what PID 1 has told."""
        try:
            for signal in self._signals.read():
                self._take(signal)
        except OSError:
            self._reconnect()

    def verdicts(self) -> list[Issue | str]:
        """Issues, and what is only to be told, of the failures whose time has come."""
        now = time.monotonic()
        due = [name for name, state in self._states.items() if state.due is not None and state.due <= now]
        return [verdict for name in due if (verdict := self._verdict(name, now))]

    def deadline(self) -> float | None:
        """Monotonic time of the next verdict."""
        return min((state.due for state in self._states.values() if state.due is not None), default=None)

    def settled_at(self) -> float:
        """Until when (monotonic) a unit that the run has started may still fail."""
        return max(self._last_start + LINGER, self.deadline() or 0.0)

    # signals

    def _take(self, signal: Signal) -> None:
        state = self._states.setdefault(signal.unit, _State())
        if isinstance(signal, JobNew):
            self._jobs[signal.job] = signal.unit
            if not state.retried:
                state.asked = state.rising = True
                state.stopped = state.again = False
        elif isinstance(signal, JobRemoved):
            self._jobs.pop(signal.job, None)
            state.stopped = signal.result == "done" and state.active in _DOWN
        else:
            self._changed(signal, state)

    def _changed(self, signal: Changed, state: _State) -> None:
        found, was_bad = signal.properties, state.bad
        state.active = found.get("ActiveState", state.active)
        state.sub = found.get("SubState", state.sub) if signal.kind == "Unit" else state.sub
        state.result = found.get("Result", state.result)
        now = time.monotonic()
        if state.rising and state.active not in _DOWN and not state.bad:
            state.rising, self._last_start = False, now
        if state.bad and (not was_bad or "Result" in found):
            state.failed_with, state.again = state.result, state.retried
        if state.bad and not was_bad:
            state.due = state.due or now + SETTLE

    def _reconnect(self) -> None:
        """PID 1 executes itself anew, and tells nothing meanwhile: look what has changed."""
        self._signals.close()
        self._jobs.clear()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with suppress(OSError, SystemdError):
                self._signals = Signals()
                return self._compare(self._manager.units())
            time.sleep(0.05)
        raise SystemdError("systemd does not answer any more")

    def _compare(self, units: dict[str, Unit]) -> None:
        for name, unit in units.items():
            signal = Changed(name, "Unit", {"ActiveState": unit.active, "SubState": unit.sub})
            self._changed(signal, self._states.setdefault(name, _State()))

    # verdicts

    def _verdict(self, name: str, now: float) -> Issue | str | None:
        state = self._states[name]
        state.due = None
        if state.told or not counts(name, self._states):
            return None
        if name in self._jobs.values() and state.active == FAILED:  # it is not over
            state.due = now + SETTLE
            return None
        how = self._how(name, state)
        if not (state.active == FAILED or state.again) or state.stopped or how == "success":
            return None
        state.told = True
        if self._is_others(name):
            return None if name in self._bad_before else f"{name} failed; a timer or the like had started it"
        if not state.asked:
            return None if name in self._bad_before else f"{name}, which ran before, failed during the run: {how}"
        return _issue(name, how)

    def _is_others(self, name: str) -> bool:
        """Whether something that was up before the run starts it by itself, at its time."""
        return any(
            trigger in self._up_before and not trigger.endswith(".socket") for trigger in self._triggers(name)
        )

    def _triggers(self, name: str) -> Iterable[str]:
        found: Iterable[str] = self._property(name, "Unit").get("TriggeredBy", ())
        return found

    def _how(self, name: str, state: _State) -> str:
        found = self._property(name, "Service") if name.endswith(".service") else {}
        result = state.failed_with or found.get("Result") or "unknown"
        status = found.get("ExecMainStatus")
        return f"{result}, status {status}" if result == "exit-code" and status else str(result)

    def _property(self, name: str, kind: str) -> dict[str, Any]:
        with suppress(SystemdError):
            return self._manager.properties(name, kind)
        return {}


def _issue(name: str, how: str) -> Issue:
    from snapbreaker.sources.journal import last_lines

    lines = last_lines(name)
    shown = f"; its journal ends: {' / '.join(lines)}" if lines else ""
    reason = f"the unit was started during the run and has failed{shown}"
    line = f"{name}: failed ({how})"
    return Issue(IssueType.ERROR, reason, RULE, line, f"journal:{name}", 0, time.time())
