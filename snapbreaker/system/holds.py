"""Keeping the machine's own package updates away while a run is going on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from snapbreaker.linux.durable import read_json, write_json
from snapbreaker.linux.process import boot_id
from snapbreaker.linux.systemd import Manager, SystemdError

# What starts apt by itself; and what is apt at work.
HELD = ("apt-daily.timer", "apt-daily-upgrade.timer", "unattended-upgrades.service")
BUSY = ("apt-daily.service", "apt-daily-upgrade.service")
_FILE = "held.json"
_PATIENCE = 10.0  # s


def hold(record: Path) -> None:
    """Stop HELD, noted in the record before. Raises SystemdError, OSError."""
    with Manager.connect() as manager:
        units = manager.units()
        running = {name: manager.enablement(name) for name in HELD if name in units and units[name].running}
        if not running:
            return
        write_json(str(record / _FILE), {"boot": boot_id(), "units": running})
        manager.stop(running)
        if not manager.settle(running, _PATIENCE):
            raise SystemdError(f"{', '.join(running)} cannot be stopped for the run")


def held_units(record: Path) -> frozenset[str]:
    """What is still to be put back."""
    noted = _noted(record)
    return frozenset(noted["units"]) if noted else frozenset()


def held(record: Path) -> bool:
    """Whether something is still to be put back."""
    return (record / _FILE).exists()


def put_back(record: Path) -> None:
    """Start what ``hold`` has stopped, unless somebody has disabled it since. Idempotent.

    Raises SystemdError; then it can be tried again. After another boot there is nothing to do.
    """
    noted = _noted(record)
    if noted is None:
        return
    if noted["boot"] == boot_id():
        with Manager.connect() as manager:
            units = manager.units()
            wanted = [
                name
                for name, enablement in noted["units"].items()
                if not (name in units and units[name].running) and manager.enablement(name) == enablement
            ]
            refused = manager.start(wanted)
            for name, why in refused.items():
                raise SystemdError(f"{name} cannot be started again: {why}")
            if not manager.settle(wanted, _PATIENCE):
                raise SystemdError(f"{', '.join(wanted)} did not start again within {_PATIENCE:g} s")
    with suppress(FileNotFoundError):
        (record / _FILE).unlink()


def _noted(record: Path) -> dict[str, Any] | None:
    try:
        noted: dict[str, Any] = read_json(str(record / _FILE))
    except (OSError, ValueError):
        return None
    return noted
