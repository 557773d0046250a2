"""How the kernel's state goes along in a rollback: swap off before files, all after them, again after units."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from snapbreaker.system.changed import Changed, Table
from snapbreaker.system.kernel import kinds, swap
from snapbreaker.system.kernel.kind import Kind
from snapbreaker.system.kernel.kinds import ADDRESSES, NFTABLES, SWAP
from snapbreaker.system.state import UNITS
from snapbreaker.system.target import Target

# Who changes what all the time, so that an older state of it would be wrong: it is only told.
_OTHERS = {
    NFTABLES: ("kubelet.service", "k3s.service", "k3s-agent.service", "snap.microk8s.daemon-kubelite.service"),
    ADDRESSES: ("keepalived.service", "corosync.service", "pacemaker.service", "ucarp.service", "vrrpd.service"),
}
# They load rules of packets from files. Others that were just started have made their own, for what they run now.
_LOADERS = (
    "nftables.service",
    "netfilter-persistent.service",
    "iptables.service",
    "ip6tables.service",
    "ufw.service",
)


class KernelRollback:
    """``done`` is what was put back, by name, with what it was; ``notes`` and ``refused`` say what was not."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.done: dict[str, str] = {}
        self.notes: list[str] = []
        self.refused: list[str] = []
        units = target.table(UNITS)
        self.told_only = {table for table, names in _OTHERS.items() if any(name in units for name in names)}

    def turn_swap_off(self) -> None:
        """What the run has turned on, before its file has to go. Raises OSError."""
        changes = [one for one in self._differences(SWAP, swap.read()[0]) if not one.was]
        refused = swap.turn_off(changes)
        for one in changes:
            if one.name in refused:
                self.notes.append(f"{kinds.named(one)} cannot be turned off: {refused[one.name]}")
            else:
                self._tell(one)

    def put_back(self, order: Iterable[Kind] = kinds.BEFORE_UNITS) -> None:
        """All that differs, in this order."""
        wanted = self._target.wanted
        back = kinds.put_back(self._differences, wanted.contents, time.monotonic() - wanted.time, order)
        for one in back.done:
            self._tell(one)
        self.refused = back.refused  # what units have brought back since is no longer among it

    def follow(self, started: Collection[str]) -> None:
        """The same after services were brought back, which may have set some of it otherwise."""
        if any(name not in _LOADERS for name in started):
            self.told_only.add(NFTABLES)
        self.put_back(kinds.AFTER_UNITS)

    def _differences(self, table: str, now: Table) -> list[Changed]:
        return [] if table in self.told_only else self._target.of_table(table, now)

    def _tell(self, one: Changed) -> None:
        again = f"{one.was}, instead of {one.now}" if one.now else f"again {one.was}"
        self.done.setdefault(kinds.named(one), again if one.was else "taken away")
