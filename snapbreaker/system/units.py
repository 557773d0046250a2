"""The state of systemd's units: which of them count, and what they were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from snapbreaker.linux.systemd import Manager, Unit
from snapbreaker.system.owners import is_session

# What a person starts and stops. Targets, slices, devices and mounts follow from these and from the files.
KINDS = (".service", ".socket", ".timer", ".path")
UP, FAILED = "active", "failed"
COMING = "activating"  # on its way up, or waiting to be started again

# Never stopped or restarted: the machine's own ground, and what people are logged in by.
GROUND = (
    "dbus-broker.service",
    "dbus.service",
    "dbus.socket",
    "display-manager.service",
    "init.scope",
    "systemd-journald.service",
    "systemd-logind.service",
    "systemd-udevd.service",
)
# Started by its socket when somebody logs in: not by the run.
LOGINS = ("ssh.service", "sshd.service")
_TERMINALS = ("getty@", "serial-getty@", "console-getty", "container-getty@", "autovt@", "emergency", "rescue")


def states(units: Mapping[str, Unit]) -> dict[str, str]:
    """UP, COMING or FAILED for each unit that is; what is down, or on its way there, is left out."""
    return {
        name: unit.active if unit.active in (FAILED, COMING) else UP
        for name, unit in units.items()
        if counts(name, units) and (unit.running or unit.active == FAILED)
    }


def read() -> dict[str, str]:
    """The states now. Raises SystemdError."""
    with Manager.connect() as manager:
        return states(manager.units())


def counts(name: str, units: Iterable[str]) -> bool:
    """Whether the unit is one that a checkpoint speaks of: logins and connections come and go by themselves."""
    if not name.endswith(KINDS) or is_session(name):
        return False
    return not _is_connection(name, units)


def may_be_stopped(name: str) -> bool:
    return name not in GROUND and not name.startswith(_TERMINALS) and not is_session(name)


def _is_connection(name: str, units: Iterable[str]) -> bool:
    """An instance that a socket with Accept=yes made for one connection: ``ssh@4-10.0.0.1:22-….service``."""
    template, at, rest = name.partition("@")
    return bool(at) and name.endswith(".service") and f"{template}.socket" in units and "-" in rest
