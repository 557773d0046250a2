"""Stopping units so that nothing of them is left, and knowing what else goes down with them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from snapbreaker.linux.systemd import Manager, SystemdError
from snapbreaker.system.leftovers import Leftovers
from snapbreaker.system.owners import our_units
from snapbreaker.system.units import counts

STOP = 20.0  # s for units that are new to stop before they are killed
LONGEST = 600.0  # s that others may take, however long they are allowed to
_DEPENDANTS = ("RequiredBy", "BoundBy", "ConsistsOf")  # they stop when the unit does: systemd.unit(5)


class Stopping:
    """``lost`` are units that were up and went down because of others; ``notes`` say what could not be stopped."""

    def __init__(self, manager: Manager) -> None:
        self._manager, self._ours = manager, our_units()
        self.lost: list[str] = []
        self.notes: list[str] = []

    def end(self, names: Collection[str]) -> list[str]:
        """Stop what has no right to be up: killed after STOP, with what it leaves behind. Which were."""
        return self._stop(names, STOP, new=True)

    def pause(self, names: Collection[str]) -> list[str]:
        """Stop what comes back later, with what would start it meanwhile; each has its own time to stop."""
        names = [*self._triggers(names), *names]
        return self._stop(names, self._patience(names), new=False)

    def _stop(self, names: Collection[str], patience: float, new: bool) -> list[str]:
        names = [name for name in names if not self.would_stop_us(name)]
        if not names:
            return []
        before = self._up()
        leftovers = Leftovers(names if new else [])
        refused = self._manager.stop(names)
        self.notes += [f"{name} cannot be stopped: {reason}" for name, reason in refused.items()]
        stopped = [name for name in names if name not in refused]
        if not self._manager.settle(stopped, patience):
            for name in stopped:
                self._manager.kill(name)
            self._manager.settle(stopped, STOP)
        leftovers.kill(stopped)
        self.lost += sorted(before - self._up() - {*names, *self.lost})
        return stopped

    def _up(self) -> set[str]:
        units = self._manager.units()
        return {name for name, unit in units.items() if unit.running and counts(name, units)}

    def would_stop_us(self, name: str) -> bool:
        """Whether a unit that this process is in needs it; that is noted."""
        for each in self._with_dependants(name):
            if each in self._ours:
                self.notes.append(f"{name} is left alone: without it {each} would stop, which snapbreaker runs in")
                return True
        return False

    def _with_dependants(self, name: str) -> Iterator[str]:
        waiting, seen = [name], {name}
        while waiting:
            one = waiting.pop()
            yield one
            facts = self._facts(one)
            below = {each for kind in _DEPENDANTS for each in facts.get(kind, [])} - seen
            seen |= below
            waiting += below

    def _triggers(self, names: Collection[str]) -> list[str]:
        """Sockets, paths and timers that are up and would start one of ``names``."""
        up = self._up()
        found = {each for name in names for each in self._facts(name).get("TriggeredBy", [])}
        return sorted((found & up) - set(names))

    def _patience(self, names: Collection[str]) -> float:
        allowed = [int(self._facts(name, "Service").get("TimeoutStopUSec", 0)) / 1e6 for name in names]
        return min(max([STOP, *(seconds + 1 for seconds in allowed)]), LONGEST)

    def _facts(self, name: str, kind: str = "Unit") -> dict[str, Any]:
        if kind == "Service" and not name.endswith(".service"):
            return {}
        try:
            return self._manager.properties(name, kind)
        except SystemdError:
            return {}
