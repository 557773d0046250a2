"""Which running services still work with what a restore has taken away, and why."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from snapbreaker.linux.process import pids, read_whole
from snapbreaker.linux.systemd import Manager, SystemdError, Unit
from snapbreaker.system.owners import unit_of

# Of systemd's own services these are no configuration: other units lie there.
UNIT_FILES = ("/etc/systemd/system/", "/etc/systemd/user/")
LISTS = Path("/var/lib/dpkg/info")
_EXECUTABLE = re.compile(rb"^\S+ ..x. \S+ \S+ [1-9]\d* +(/.*)$", re.MULTILINE)  # a line of /proc/PID/maps
_GONE = b" (deleted)"
_VAULT = b"/.snapbreaker/"


def stale(manager: Manager, running: Mapping[str, Unit], touched: Collection[str]) -> dict[str, str]:
    """Running services that must be restarted, with the reason; ``touched`` are the files that went back.

    One runs on replaced files, or its unit file, environment, configuration or any file of its package went back.
    """
    touched = frozenset(_merged(touched))
    services = [name for name, unit in running.items() if name.endswith(".service") and unit.sub == "running"]
    found = _on_replaced_files(services, touched)
    asked = {name: _files_of_unit(manager, name) for name in services if name not in found}
    packages = _packages({path for files in asked.values() for path in files[:1]})
    for name, files in asked.items():
        for path in files:
            if path in touched:
                found.setdefault(name, f"{path} went back")
        package, package_files = packages.get(files[0] if files else "", ("", frozenset()))
        theirs = sorted((package_files & touched) | _configured(name, package, touched))
        if theirs:
            found.setdefault(name, f"{theirs[0]} went back")
    return found


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


def _files_of_unit(manager: Manager, name: str) -> list[str]:
    """Its unit file first, then drop-ins and environment files."""
    try:
        unit, service = manager.properties(name), manager.properties(name, "Service")
    except SystemdError:
        return []
    environment: list[Any] = service.get("EnvironmentFiles", [])
    return [unit.get("FragmentPath", ""), *unit.get("DropInPaths", []), *(row[0] for row in environment)]


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
