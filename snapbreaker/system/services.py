"""Bringing units to where they were."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from snapbreaker.linux.systemd import Manager, Unit
from snapbreaker.system.leftovers import Leftovers
from snapbreaker.system.owners import is_passing, our_units
from snapbreaker.system.stale import stale
from snapbreaker.system.state import UNITS
from snapbreaker.system.target import Target
from snapbreaker.system.units import FAILED, LOGINS, UP, counts, may_be_stopped

STOP = 20.0  # s for units to stop before they are killed
START = 90.0  # s for units to come up: systemd's own default


class Services:
    """The units of this machine on their way to ``target``. Methods raise SystemdError."""

    def __init__(self, manager: Manager, target: Target) -> None:
        self.manager, self._target = manager, target
        self._wanted = target.table(UNITS)
        self._let_go: list[str] = []
        self.stopped_again: list[str] = []
        self.started: list[str] = []
        self.restarted: dict[str, str] = {}

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
        extra = self._extra(self.manager.units())
        self._stop(extra)
        return extra

    def let_go(self, names: Collection[str]) -> list[str]:
        """Stop services until their files are back; which were up."""
        units = self.manager.units()
        running = [name for name in names if name in units and units[name].running]
        self._stop(running)
        self._let_go += running
        return running

    def reload(self) -> None:
        """Have systemd read its files again; its own program, too, where that was replaced."""
        if _is_replaced("/proc/1/exe"):
            self.manager.reexecute()
        else:
            self.manager.reload()

    def bring_back(self, touched: Collection[str]) -> None:
        """Stop, start and restart units until all are what they were; ``touched`` paths went back."""
        units = self.manager.units()
        self.stopped_again = self._extra(units)
        self._stop(self.stopped_again)
        self.started = self._missing(units)
        running = {name: unit for name, unit in units.items() if self._may_be_restarted(name, unit)}
        self.restarted = stale(self.manager, running, touched, self._target.since)
        self.manager.start(self.started)
        self.manager.restart(self.restarted)
        self.manager.settle([*self.started, *self.restarted], START)
        self._forget_failures()

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
            if state == UP and self._target.concerns(UNITS, name)
            if name not in units or not units[name].running
        ]
        for name in self._let_go:
            was_up = self._wanted.get(name) == UP or not self._target.concerns(UNITS, name)
            if was_up and name not in down and (name not in units or not units[name].running):
                down.append(name)
        return down

    def _may_be_restarted(self, name: str, unit: Unit) -> bool:
        return unit.active == UP and may_be_stopped(name) and name not in our_units()

    def _stop(self, names: Collection[str]) -> None:
        """What does not stop within STOP is killed, and what a service leaves behind in its cgroup too."""
        if not names:
            return
        leftovers = Leftovers(names)
        self.manager.stop(names)
        if not self.manager.settle(names, STOP):
            for name in names:
                self.manager.kill(name)
            self.manager.settle(names, STOP)
        leftovers.kill()

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
    there, running = os.stat(path), os.stat(link)
    return (there.st_dev, there.st_ino) != (running.st_dev, running.st_ino)
