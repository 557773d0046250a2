"""Bringing units to where they were."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from snapbreaker.linux.systemd import Manager, SystemdError, Unit
from snapbreaker.system.owners import is_passing, our_units
from snapbreaker.system.stale import stale
from snapbreaker.system.state import UNITS
from snapbreaker.system.stopping import Stopping
from snapbreaker.system.target import Target
from snapbreaker.system.units import FAILED, GROUND, LOGINS, UP, counts, may_be_stopped

START = 90.0  # s for units to come up: systemd's own default


class Services:
    """The units of this machine on their way to ``target``. Methods raise SystemdError."""

    def __init__(self, manager: Manager, target: Target) -> None:
        self.manager, self._target = manager, target
        self._wanted = target.table(UNITS)
        self._stopping = Stopping(manager)
        self._let_go: list[str] = []
        self.errors: list[str] = []
        self.ground: dict[str, str] = {}  # what is never restarted and ought to be, with the reason
        self.over: set[str] = set()  # jobs that came to their own end: they are not run a second time
        self.stopped_again: list[str] = []
        self.started: list[str] = []
        self.restarted: dict[str, str] = {}

    @property
    def notes(self) -> list[str]:
        return self._stopping.notes

    @property
    def comparable(self) -> bool:
        """Whether the recorded states are of this boot: another one brings its units up by itself."""
        return self._target.wanted.of_this_boot

    @property
    def going_down(self) -> bool:
        """Whether the machine is shutting down."""
        return self.manager.state() == "stopping"

    def close(self) -> None:
        self.manager.close()

    def cancel_jobs(self) -> None:
        """Nothing was queued when the run began: what is now was queued by it."""
        self.manager.cancel(job for job, (unit, _) in self.manager.jobs().items() if not is_passing(unit))

    def stop_extra(self) -> list[str]:
        """Stop what is up, or coming, and was not; which units that were."""
        return self._stopping.end(self._extra(self.manager.units()))

    def let_go(self, names: Collection[str]) -> list[str]:
        """Stop services until their files are back, with what needs or starts them; which were stopped."""
        units, lost = self.manager.units(), len(self._stopping.lost)
        stopped = self._stopping.pause([name for name in names if name in units and units[name].running])
        self._let_go += stopped
        return [*stopped, *self._stopping.lost[lost:]]

    def reload(self) -> None:
        """Have systemd read its files again; its own program, too, where that was replaced."""
        if _is_replaced("/proc/1/exe"):
            self.manager.reexecute()
        else:
            self.manager.reload()

    def bring_back(self, touched: Collection[str]) -> None:
        """Stop, start and restart units until all are what they were; ``touched`` paths went back."""
        units = self.manager.units()
        self.stopped_again = self._stopping.end(self._extra(units))
        units = self.manager.units()
        self.started = self._missing(units)
        ours = our_units()
        up = {name: unit for name, unit in units.items() if unit.active == UP and name not in ours}
        target = self._target
        found = stale(self.manager, up, touched, target.since, target.wanted.time)
        self.restarted = {
            name: reason
            for name, reason in found.items()
            if may_be_stopped(name) and not self._stopping.would_stop_us(name)
        }
        self.ground = {name: reason for name, reason in found.items() if name in GROUND}
        self._stop_sockets()
        refused = self.manager.start(self.started)
        still = self.manager.restart(self.restarted)
        self.manager.settle([*self.started, *self.restarted], START)
        self._forget_failures()
        self.errors += [f"{name} cannot be restarted: {reason}" for name, reason in still.items()]
        self._check_started(refused)

    def _extra(self, units: Mapping[str, Unit]) -> list[str]:
        ours = our_units()
        return [
            name
            for name, unit in units.items()
            if unit.running and name not in self._wanted and self._target.concerns(UNITS, name)
            if counts(name, units) and may_be_stopped(name) and name not in ours
            if not (name in LOGINS and name.replace(".service", ".socket") in self._wanted)
        ]

    def _missing(self, units: Mapping[str, Unit]) -> list[str]:
        """What was up and is not, and what was stopped for the sake of its files."""
        down = [
            name
            for name, state in self._wanted.items()
            if state == UP and self._target.concerns(UNITS, name) and name not in self._target.held
            if name not in units or not units[name].running
        ]
        self.over = {name for name in down if name not in self._let_go and self._is_job(name)}
        down = [name for name in down if name not in self.over]
        for name in [*self._let_go, *self._stopping.lost]:
            was_up = self._wanted.get(name) == UP or not self._target.concerns(UNITS, name)
            if was_up and name not in down and (name not in units or not units[name].running):
                down.append(name)
        return down

    def _is_job(self, name: str) -> bool:
        """Whether it ends by itself: started by a timer, or an unnamed command of systemd-run(1)."""
        if name.startswith("run-"):
            return True
        try:
            triggers: list[str] = self.manager.properties(name).get("TriggeredBy", [])
        except SystemdError:
            return False
        return any(trigger.endswith(".timer") for trigger in triggers)

    def _stop_sockets(self) -> None:
        """A socket is not made anew while its service runs: both stop, then both start."""
        for name in [name for name in self.restarted if name.endswith(".socket")]:
            up = self.manager.units()
            served: list[str] = self.manager.properties(name).get("Triggers", [])
            if not all(may_be_stopped(each) for each in served):
                del self.restarted[name]
                continue
            served = [each for each in served if each in up and up[each].running]
            again = [each for each in self._stopping.pause([name, *served]) if each not in self.started]
            self.started += sorted(again, key=lambda each: not each.endswith(".socket"))
        self.started += [name for name in self._missing(self.manager.units()) if name not in self.started]
        for name in self.started:
            self.restarted.pop(name, None)

    def _check_started(self, refused: Mapping[str, str]) -> None:
        """What the comparison with the checkpoint does not see: others than the run's that were stopped for it."""
        units = self.manager.units()
        for name in self.started:
            if name not in units or not units[name].running:
                self.errors.append(
                    f"{name} was stopped and does not start: {refused.get(name, 'see its journal')}"
                )

    def _forget_failures(self) -> None:
        """A unit that the run made fail was not failed before; one that must be up and is not stays visible."""
        for name, unit in self.manager.units().items():
            if unit.active == FAILED and name not in self._wanted and self._target.concerns(UNITS, name):
                self.manager.reset_failed(name)


def _is_replaced(link: str) -> bool:
    """Whether a process executes a file that is no longer where it was."""
    path = os.readlink(link)
    if path.endswith(" (deleted)") or "/.snapbreaker/" in path:
        return True
    try:
        there, running = os.stat(path), os.stat(link)
    except FileNotFoundError:
        return True
    return (there.st_dev, there.st_ino) != (running.st_dev, running.st_ino)
