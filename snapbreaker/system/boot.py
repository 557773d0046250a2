"""A recovery after a reboot: systemd has already begun to start what the broken files told it to."""

from __future__ import annotations

from collections.abc import Collection

from snapbreaker.linux.systemd import Manager, SystemdError
from snapbreaker.system.boot_files import NAME
from snapbreaker.system.owners import our_units
from snapbreaker.system.stale import stale
from snapbreaker.system.units import UP, may_be_stopped

START = 90.0  # s
DEFAULT = "default.target"
_BOOTING = ("initializing", "starting")


class Boot:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def follow(self, touched: Collection[str]) -> None:
        """The files are back. Raises SystemdError.

        Our unit, early in a boot, has its whole transaction made anew from what the unit files say now. Later, or
        when a person calls us (who may have isolated another target), the services that run on what was there
        before are restarted, and those that are no longer known stop.
        """
        ours = our_units()
        booting = NAME in ours and self._manager.state() in _BOOTING
        self._manager.reload()
        if not touched:
            return
        if booting:
            self._manager.isolate(DEFAULT)
            return
        units = {
            name: unit for name, unit in self._manager.units().items() if may_be_stopped(name) and name not in ours
        }
        unknown = [name for name, unit in units.items() if unit.running and unit.load == "not-found"]
        self._manager.stop(unknown)
        old = stale(self._manager, {name: unit for name, unit in units.items() if unit.active == UP}, touched)
        self._manager.restart(old)
        self._manager.settle([*unknown, *old], START)
        for name in self._failed(unknown):
            self._manager.reset_failed(name)

    def _failed(self, names: Collection[str]) -> list[str]:
        try:
            units = self._manager.units()
        except SystemdError:
            return []
        return [name for name in names if name in units and units[name].active == "failed"]
