"""Is the system what was recorded of it?"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence

from snapbreaker.system import packages
from snapbreaker.system.changed import Changed
from snapbreaker.system.kernel import kinds
from snapbreaker.system.owners import is_session, our_units
from snapbreaker.system.parts import Parts
from snapbreaker.system.sockets import NO_UNIT, chosen_by_the_kernel
from snapbreaker.system.state import BOOT_SECTORS, EFI, PACKAGES, SOCKETS, UNITS, capture
from snapbreaker.system.target import Target
from snapbreaker.system.units import COMING, FAILED, LOGINS, may_be_stopped

PATIENCE = 10.0  # s for a service that is up to open its ports
_POLL = 0.1


class Proof:
    """Compares ``tables``. ``differences`` are (name, text), ``compared`` (what, count), ``notes`` what differs by
    nobody's fault. Units that are ``over`` had ended by themselves; changes of the tables ``told_only`` are notes.
    """

    def __init__(
        self,
        parts: Parts,
        target: Target,
        tables: Sequence[str],
        over: Collection[str] = frozenset(),
        told_only: Collection[str] = frozenset(),
    ) -> None:
        self._parts, self._target, self._tables, self._over = parts, target, tables, over
        self._told_only = told_only
        self.differences: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.compared: list[tuple[str, int]] = []

    def run(self) -> None:
        """Compare; again and again while services may still be coming up. Raises OSError, SystemdError."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self._compare()
            database = list(_database()) if self._parts.packages else []
            settling = bool(database) or any(table in (UNITS, SOCKETS) for table, _, _ in self._found)
            if not settling or time.monotonic() >= deadline:
                break
            time.sleep(_POLL)
        self.differences = [*((name, text) for _, name, text in self._found), *database]

    def _compare(self) -> None:
        now = capture(self._parts)
        self._found: list[tuple[str, str, str]] = []
        self.notes = []
        came: list[str] = []
        changes = self._target.differences(now, self._tables)
        for change in changes:
            if _is_expected(change, self._target.held):
                continue
            words = _named(change), change.text()
            if _is_forgotten(change):
                self.notes.append(f"{words[0]} had failed before; that was reset, and cannot be made again")
            elif change.name in self._over and not change.now:
                self.notes.append(f"{words[0]} was up and has ended: a job is not run a second time")
            elif change.table == kinds.MODULES and not change.was:
                came.append(change.name)
            elif change.table in self._told_only or _is_nobodys(change) or _is_another_port(change, changes):
                self.notes.append(": ".join(words))
            else:
                self._found.append((change.table, *words))
        if came:
            self.notes.append(f"modules that the kernel has loaded since, and uses: {', '.join(came)}")
        counts = {table: len(self._target.table(table)) for table in self._tables}
        self.compared = [(table, count) for table, count in counts.items() if table not in kinds.TABLES]
        if kernel := sum(count for table, count in counts.items() if table in kinds.TABLES):
            self.compared.append(("kernel state", kernel))


_KIND = {
    PACKAGES: "package",
    "users": "user",
    "groups": "group",
    UNITS: "unit",
    SOCKETS: "port",
    BOOT_SECTORS: "boot",
    EFI: "EFI variable",
}


def _named(change: Changed) -> str:
    if change.table in kinds.TABLES:
        return kinds.named(change)
    return f"{_KIND.get(change.table, change.table)} {change.name}"


def _is_expected(change: Changed, held: Collection[str]) -> bool:
    """A unit that was on its way may have arrived or ended; what is ``held`` starts when all is over."""
    if change.table != UNITS:
        return False
    return change.was == COMING or (change.now == COMING and not change.was) or change.name in held


def _is_another_port(change: Changed, changes: Sequence[Changed]) -> bool:
    """Whether the kernel, or the unit by chance, has chosen the port: the same unit has others on both sides."""
    if change.table != SOCKETS:
        return False
    protocol = change.name.partition(" ")[0]
    if protocol == "tcp" and _port(change) not in chosen_by_the_kernel():
        return False
    owner = change.was or change.now
    return any(
        one.table == SOCKETS
        and one.name.startswith(f"{protocol} ")
        and (one.was or one.now) == owner
        and bool(one.was) != bool(change.was)
        for one in changes
    )


def _is_forgotten(change: Changed) -> bool:
    return change.table == UNITS and change.was == FAILED and not change.now


def _is_nobodys(change: Changed) -> bool:
    """What a rollback neither made nor could unmake.

    A port of another login's; one that the kernel chose for a process of no unit; what must never be stopped.
    """
    if kinds.is_nobodys(change):
        return True
    if change.table == SOCKETS:
        owner = change.was or change.now
        passing = owner == NO_UNIT and _port(change) in chosen_by_the_kernel()
        return passing or (is_session(owner) and owner not in our_units())
    if change.table != UNITS:
        return False
    if change.was:
        return False
    return not may_be_stopped(change.name) or change.name in LOGINS


def _port(change: Changed) -> int:
    return int(change.name.rpartition(":")[2])


def _database() -> Iterator[tuple[str, str]]:
    """Can dpkg be used again? No lock file is ever removed: a lock ends with the process that has it."""
    for path in packages.held_locks():
        yield path, "is locked by another process: no package manager can work"
    for package in packages.unsound(packages.read()):
        yield f"package {package.name}", f"is {package.state} ({package.flag}): see dpkg --audit"
    if packages.journal():
        yield packages.UPDATES, "is not empty: dpkg was interrupted"
