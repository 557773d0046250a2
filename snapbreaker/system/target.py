"""Where the system has to go in a rollback, and which names that concerns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from snapbreaker.dataclass import dataclass
from snapbreaker.system import cron
from snapbreaker.system.changed import Changed, Table
from snapbreaker.system.holds import held_units
from snapbreaker.system.kernel import kinds
from snapbreaker.system.state import AFTER, BEFORE, HELD, VOLATILE, SystemState, compare, compare_table


@dataclass(frozen=True, slots=True)
class Target:
    """``wanted`` is the state to reach, ``only`` the names of each table that one run changed; None: all count.

    ``made`` is what that run has left, or had when it was held: of the kernel's state only what still is so goes
    back.
    What was started after ``since`` (CLOCK_MONOTONIC) may have been started with what the run had put there.
    """

    wanted: SystemState
    only: dict[str, frozenset[str]] | None = None
    held: frozenset[str] = frozenset()  # units that are put back when all is over (``holds``)
    since: float = 0.0
    made: SystemState | None = None
    by_cron: cron.Lines | None = None  # what the run has added to that; None: see what is there now

    @classmethod
    def of(cls, record: Path, undo: bool, again: bool = False) -> Target:
        """What the record in this directory says of the system, of which it holds some part.

        ``undo``: only what the committed run changed goes back; ``again``: that comes once more (a rollback is
        taken back). Raises OSError, ValueError when it is not there or not whole.
        """
        before = SystemState.load(record / BEFORE)
        if not undo:
            made = SystemState.load(record / HELD) if (record / HELD).exists() else None
            return cls(before, since=before.time, held=held_units(record), made=made)
        after = SystemState.load(record / AFTER)
        only: dict[str, set[str]] = {table: set() for table in before.tables}
        for change in compare(before, after):
            only[change.table].add(change.name)
        names = {table: frozenset(changed) for table, changed in only.items()}
        if again:
            return cls(after, names, made=before)
        return cls(
            before, names, since=before.time, made=after, by_cron=cron.added(before.cron or {}, after.cron or {})
        )

    def cron_lines(self) -> cron.Lines:
        """What the run has given cron(8) to run. To be asked before files go back."""
        if not self.wanted.of_this_boot or self.wanted.cron is None:
            return {}
        return cron.added(self.wanted.cron, cron.read()) if self.by_cron is None else self.by_cron

    @property
    def tables(self) -> list[str]:
        """Those that can be compared in this boot."""
        return [table for table in self.wanted.tables if table not in VOLATILE or self.wanted.of_this_boot]

    def of_table(self, table: str, now: Table) -> list[Changed]:
        """The differences of one table, which may not have been recorded."""
        if table not in self.wanted.tables:
            return []
        return [one for one in compare_table(table, self.table(table), now) if self._is_ours(one)]

    def _is_ours(self, one: Changed) -> bool:
        if self.made is not None and one.table in kinds.TABLES:
            made = self.made.tables.get(one.table, {}).get(one.name, "")
            return self.concerns(one.table, one.name) and made == one.now
        return self.concerns(one.table, one.name)

    def concerns(self, table: str, name: str) -> bool:
        return self.only is None or name in self.only.get(table, frozenset())

    def table(self, name: str) -> Table:
        return self.wanted.tables.get(name, {})

    def differences(self, now: SystemState, tables: Sequence[str] = ()) -> list[Changed]:
        """Of ``tables``, by default all that can be compared."""
        found = compare(self.wanted, now, tables or self.tables)
        return [one for one in found if self._is_ours(one)]
