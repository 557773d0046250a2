"""Which running services still work with what a restore has taken away, and why."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from snapbreaker.dataclass import dataclass
from snapbreaker.linux.process import pids, read_whole
from snapbreaker.linux.systemd import Manager, SystemdError, Unit
from snapbreaker.system.owners import unit_of

# Where systemd looks for the system's unit files: systemd.unit(5), "Unit File Load Path".
DIRECTORIES = re.compile(r"/(etc|run|lib|usr/lib|usr/local/lib)/systemd/(system|system\.control|transient)/(.+)")
# Of systemd's own services these are no configuration: other units lie there.
UNIT_FILES = ("/etc/systemd/system/", "/etc/systemd/system.control/", "/etc/systemd/user/")
LISTS = Path("/var/lib/dpkg/info")
_EXECUTABLE = re.compile(rb"^\S+ ..x. \S+ \S+ [1-9]\d* +(/.*)$", re.MULTILINE)  # a line of /proc/PID/maps
_GONE = b" (deleted)"
_VAULT = b"/.snapbreaker/"


def stale(
    manager: Manager,
    running: Mapping[str, Unit],
    touched: Collection[str],
    since: float = 0.0,
    effects_since: float = math.inf,
) -> dict[str, str]:
    """Units that must be restarted, with the reason; ``touched`` are the files that went back.

    One runs on replaced files, or its configuration or any file of its package went back; or its unit file, a
    drop-in or its environment did, which a start reads, and it was started after ``since`` (CLOCK_MONOTONIC).

    Services that have done their work and left its effect (firewalls), and sockets: only those that were started
    after ``effects_since``, and not for the sake of other files of their package.
    """
    touched = frozenset(_merged(touched))
    services = [name for name, unit in running.items() if _may_be_stale(name, unit)]
    found = _on_replaced_files(services, touched)
    asked = {name: _read(manager, name) for name in services if name not in found}
    packages = _packages({facts.fragment for facts in asked.values()})
    for name, facts in asked.items():
        effect = running[name].sub != "running" or name.endswith(".socket")
        if effect and facts.started <= effects_since:
            continue
        package, package_files = packages.get(facts.fragment, ("", frozenset()))
        if effect:
            package, package_files = "", frozenset()
        theirs = {*(package_files & touched), *_configured(name, package, touched)}
        theirs = {path for path in theirs if not DIRECTORIES.match(path)}
        if facts.started > since:
            theirs |= {path for path in touched if path in facts.files or _describes(path, facts.names)}
        if theirs:
            found[name] = f"{min(theirs)} went back"
    return found


def _may_be_stale(name: str, unit: Unit) -> bool:
    return name.endswith(".socket") or (name.endswith(".service") and unit.sub in ("running", "exited"))


@dataclass(frozen=True, slots=True)
class _Facts:
    """What systemd knows of a service: its unit file, what else was read at its start, its names, that start."""

    fragment: str = ""
    files: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    started: float = 0.0


def _read(manager: Manager, name: str) -> _Facts:
    try:
        unit = manager.properties(name)
        service = manager.properties(name, "Service") if name.endswith(".service") else {}
    except SystemdError:
        return _Facts()
    environment: list[Any] = service.get("EnvironmentFiles", [])
    started = max(service.get("ExecMainStartTimestampMonotonic", 0), unit.get("InactiveExitTimestampMonotonic", 0))
    fragment: str = unit.get("FragmentPath", "")
    return _Facts(
        fragment,
        frozenset([fragment, *unit.get("DropInPaths", []), *(row[0] for row in environment)]) - {""},
        frozenset(unit.get("Names", [name])),
        started / 1e6,
    )


def _describes(path: str, names: Collection[str]) -> bool:
    """Whether it is the unit file or a drop-in of one of ``names``: it may be gone by now, so nobody can be asked.

    ``a-b@c.service`` has drop-ins in ``a-b@c.service.d``, ``a-b@.service.d``, ``a-.service.d`` and ``service.d``.
    """
    match = DIRECTORIES.match(path)
    if match is None:
        return False
    first, _, below = match[3].partition("/")
    for name in names:
        stem, _, kind = name.rpartition(".")
        template = stem.partition("@")[0] + "@" if "@" in stem else stem
        own = {name, f"{template}.{kind}"}
        if not below and first in own:
            return True
        above = {f"{stem[: end.end()]}.{kind}" for end in re.finditer("-", stem)}
        if below and first.removesuffix(".d") in own | above | {kind}:
            return True
    return False


def _merged(paths: Iterable[str]) -> Iterable[str]:
    """Where /lib is a link to usr/lib, databases name files either way."""
    for path in paths:
        yield path
        if path.startswith("/usr/"):
            yield path.removeprefix("/usr")


def _on_replaced_files(services: Collection[str], touched: Collection[str]) -> dict[str, str]:
    """Services with code mapped that lies in a vault now, or was deleted and has come back as another file."""
    wanted, found = frozenset(services), {}
    for pid in pids():
        unit = unit_of(pid)
        if unit in wanted and unit not in found and (path := _replaced(pid, touched)):
            found[unit] = f"it runs on {path}, which was replaced"
    return found


def _replaced(pid: int, touched: Collection[str]) -> str:
    with suppress(OSError):
        for match in _EXECUTABLE.finditer(read_whole(f"/proc/{pid}/maps")):
            path = match[1]
            name = os.fsdecode(path.removesuffix(_GONE))
            if _VAULT in path or (path.endswith(_GONE) and name in touched):
                return name
    return ""


def _packages(unit_files: Collection[str]) -> dict[str, tuple[str, frozenset[str]]]:
    """For each unit file the package that it came with, and all files of that."""
    wanted = {os.fsencode(variant): path for path in unit_files if path for variant in _merged([path])}
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for listing in LISTS.glob("*.list") if wanted else ():
        with suppress(OSError):
            lines = frozenset(listing.read_bytes().split(b"\n"))
            for variant in wanted.keys() & lines:
                package = listing.stem.partition(":")[0]
                files = frozenset(map(os.fsdecode, lines - {b"/."})) - _directories(lines)
                found[wanted[variant]] = (package, files)
    return found


def _directories(lines: Collection[bytes]) -> frozenset[str]:
    """A package lists the directories that it shares with all others too: what has something below it."""
    return frozenset(os.fsdecode(line.rpartition(b"/")[0]) for line in lines)


def _configured(name: str, package: str, touched: Collection[str]) -> set[str]:
    """Paths that by convention configure the service: /etc/NAME/…, /etc/NAME.conf, /etc/default/NAME."""
    names = {name.removesuffix(".service").partition("@")[0], package} - {""}
    exact = {
        f"/etc/{directory}{one}{suffix}"
        for one in names
        for directory in ("", "default/")
        for suffix in ("", ".conf")
    }
    prefixes = tuple(f"/etc/{one}/" for one in names)
    found = {path for path in touched if path in exact or path.startswith(prefixes)}
    return {path for path in found if not path.startswith(UNIT_FILES)}
