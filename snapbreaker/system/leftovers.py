"""What a stopped service leaves running in its cgroup: KillMode=process and =none, systemd.kill(5)."""

from __future__ import annotations

import os
from collections.abc import Collection

from snapbreaker.linux.process import cgroup_of, pids
from snapbreaker.monitor.cgroup import Cgroup, Hierarchy
from snapbreaker.system.owners import unit_of

_GONE = 2.0  # s


class Leftovers:
    """Find the cgroups of ``units`` while they are up; ``kill`` what is left there when they are down."""

    def __init__(self, units: Collection[str]) -> None:
        self._cgroups: dict[str, Cgroup] = {}
        hierarchy = Hierarchy.find()
        wanted = frozenset(units)
        paths = {path: unit for pid in pids() if (unit := unit_of(pid)) in wanted and (path := _top(pid))}
        for path, unit in paths.items() if hierarchy else ():
            directory = hierarchy.directory(path) if hierarchy else None
            if directory and (cgroup := _opened(directory)):
                self._cgroups[unit] = cgroup

    def kill(self, stopped: Collection[str]) -> None:
        """Of those that ``stopped``; where that was refused the unit is up, and keeps its processes."""
        for unit, cgroup in self._cgroups.items():
            if unit in stopped and cgroup.pids():
                cgroup.kill()
                cgroup.wait_empty(_GONE)
            cgroup.close()


def _top(pid: int) -> str:
    """The path of the unit's own cgroup: it may have others below it."""
    path, unit = cgroup_of(pid) or "", unit_of(pid)
    above, found, _ = path.partition(f"/{unit}")
    return above + found


def _opened(directory: str) -> Cgroup | None:
    try:
        return Cgroup(directory, os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError:
        return None
