"""The state of the system at one instant, as plain tables, and what differs between two of them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, field
from pathlib import Path
from typing import Any

from snapbreaker.dataclass import dataclass
from snapbreaker.linux.durable import read_json, write_json
from snapbreaker.linux.process import boot_id
from snapbreaker.system import accounts, boot_sectors, cron, efi, packages, runtime_units, sockets, units
from snapbreaker.system.changed import Changed, Table
from snapbreaker.system.kernel import kinds
from snapbreaker.system.kernel.place import here
from snapbreaker.system.parts import Parts

PACKAGES, USERS, GROUPS = "packages", "users", "groups"
UNITS, RUNTIME, SOCKETS = "units", "runtime unit files", "listening sockets"
BOOT_SECTORS, EFI = "boot sectors", "EFI variables"
# What needs the boot that it was recorded in. Firmware changes its variables at each.
VOLATILE = (UNITS, RUNTIME, SOCKETS, EFI, *kinds.TABLES)

BEFORE, AFTER, HELD = "system.json", "system.after.json", "system.held.json"


@dataclass(frozen=True, slots=True)
class SystemState:
    """``tables`` by what they are of, each a name with its state; what is not there has no name.

    ``time`` is CLOCK_MONOTONIC, in seconds, of boot ``boot``: what systemd's time stamps count in. ``contents``
    has by digest what the boot sectors hold, by table and name what makes a part of the kernel's state; ``cron``,
    for each command of cron's, the file that it is from, None where that was not recorded.
    """

    boot: str
    time: float
    tables: dict[str, Table] = field(default_factory=dict)
    contents: Table = field(default_factory=dict)
    cron: Table | None = None

    @property
    def of_this_boot(self) -> bool:
        return self.boot == boot_id()

    def save(self, path: Path) -> None:
        write_json(str(path), asdict(self))

    @classmethod
    def load(cls, path: Path) -> SystemState:
        """Raises OSError, ValueError where it is not there or not whole."""
        data: dict[str, Any] = read_json(str(path))
        return cls(data["boot"], data["time"], data["tables"], data.get("contents", {}), data.get("cron"))


def capture(parts: Parts) -> SystemState:
    """The state of ``parts`` now. Raises OSError, SystemdError."""
    now = time.monotonic()
    tables: dict[str, Table] = {}
    if parts.packages:
        tables[PACKAGES] = {name: str(package) for name, package in packages.read().items()}
    if parts.accounts:
        tables[USERS], tables[GROUPS] = accounts.users(), accounts.groups()
    if parts.services:
        tables[UNITS] = units.read()
        tables[RUNTIME] = runtime_units.read()
    if parts:
        tables[SOCKETS] = sockets.listening()
    contents: Table = {}
    if parts.boot:
        tables[BOOT_SECTORS], contents = boot_sectors.read()
        tables[EFI] = efi.read()
    if parts.kernel and here():
        kernel, made = kinds.read()
        tables |= kernel
        contents |= made
    return SystemState(boot_id(), now, tables, contents, cron.read() if parts else None)


def compare(old: SystemState, new: SystemState, tables: Iterable[str] = ()) -> list[Changed]:
    """Every name whose state differs, of the tables that both have. Who has a socket open does not count."""
    found: list[Changed] = []
    for table in tables or old.tables:
        if table in old.tables and table in new.tables:
            found += compare_table(table, old.tables[table], new.tables[table])
    return found


def compare_table(table: str, old: Table, new: Table) -> list[Changed]:
    if table == SOCKETS:
        return [
            Changed(table, name, old.get(name, ""), new.get(name, "")) for name in sorted(old.keys() ^ new.keys())
        ]
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    found = [Changed(table, name, old.get(name, ""), new.get(name, "")) for name in names]
    return [change for change in found if kinds.counts(change)]
