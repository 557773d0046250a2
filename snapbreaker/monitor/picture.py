"""What the processes of a run are at: for the report of one that was halted because nothing moved.

proc_pid_stat(5), proc_pid_wchan(5), proc_pid_syscall(5). Taken before the freeze, for which every
task leaves its system call.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

from snapbreaker.doing import Doing
from snapbreaker.linux.process import Process, command_line, read_whole
from snapbreaker.monitor.waiting import waits_for

MOST = 100  # processes that are looked at
_LENGTH = 200  # characters of a command line


def picture(members: Mapping[int, Process]) -> list[Doing]:
    """Parents before their children, each with its children behind it."""
    children: dict[int, list[Process]] = {}
    for one in members.values():
        above = one.parent if one.parent in members else 0
        children.setdefault(above, []).append(one)
    found: list[Doing] = []
    waiting = [(0, one) for one in reversed(children.get(0, []))]
    while waiting and len(found) < MOST:
        depth, one = waiting.pop()
        found.append(_doing(one, depth))
        waiting += [(depth + 1, child) for child in reversed(children.get(one.pid, []))]
    return found


def _doing(one: Process, depth: int) -> Doing:
    words = " ".join(command_line(one.pid)) or f"[{one.comm}]"
    waits = waits_for(one.pid) if one.state in "SD" else ""
    return Doing(one.pid, one.parent, depth, words[:_LENGTH], one.state, _wchan(one.pid), waits)


def _wchan(pid: int) -> str:
    with suppress(OSError):
        name = os.fsdecode(read_whole(f"/proc/{pid}/wchan"))
        return "" if name == "0" else name
    return ""
