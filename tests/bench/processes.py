"""What the processes below this one have used: processor time, memory."""

from __future__ import annotations

import os
import resource
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")


class Used(NamedTuple):
    """Seconds of processor time: in the program itself, and in the kernel for it."""

    user: float
    system: float

    def since(self, before: Used) -> Used:
        return Used(self.user - before.user, self.system - before.system)


def below(besides: Collection[int] = ()) -> dict[int, list[str]]:
    """Every descendant of this process that is there, by pid: the fields of proc_pid_stat(5) from the third on.

    Without those of ``besides`` and their descendants. Orphans are missing unless this process is their subreaper.
    """
    all_of_them = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (text := _read(f"/proc/{name}/stat")):
            all_of_them[int(name)] = text.rpartition(")")[2].split()
    found: dict[int, list[str]] = {}
    parents = {os.getpid()}
    while parents:
        children = {
            pid: fields for pid, fields in all_of_them.items() if int(fields[1]) in parents and pid not in besides
        }
        found |= children
        parents = set(children)
    return found


def used() -> Used:
    """By all descendants until now, those that have ended and were waited for included."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    there = [[int(field) / TICKS for field in fields[11:15]] for fields in below().values()]
    return Used(
        ended.ru_utime + sum(user + reaped for user, _, reaped, _ in there),
        ended.ru_stime + sum(system + reaped for _, system, _, reaped in there),
    )


def peak_bytes(pid: int) -> int:
    """The most memory that it has had resident (VmHWM, proc_pid_status(5)), with what it shares; 0: it is gone."""
    return _field(f"/proc/{pid}/status", "VmHWM:")


def proportional_bytes(pid: int) -> int:
    """What it has resident now, each page divided by the number of those that share it (Pss)."""
    return _field(f"/proc/{pid}/smaps_rollup", "Pss:")


def forget_peak(pid: int) -> None:
    """VmHWM begins anew with what is resident now (proc(5), clear_refs)."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5\n")
    except OSError:
        return


def _field(path: str, name: str) -> int:
    for line in _read(path).splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: str) -> str:
    """Empty where the process is gone."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""
