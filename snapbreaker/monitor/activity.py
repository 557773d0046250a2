"""Whether a silent command is at work: does it compute, read or write?

Processor time is that of its cgroup (cpu.stat, there without any controller: cgroup-v2.rst), which also counts
processes that have ended. Octets are those of read(2) and write(2) of whatever kind (proc_pid_io(5)), and of
io.stat where the controller is on.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress

from snapbreaker.dataclass import dataclass
from snapbreaker.linux.process import read_whole
from snapbreaker.monitor.process_tree import ProcessTree

COMPUTES = 0.01  # of one processor; a loop around sleep(1) takes 0.002
MOVES = 64 * 1024  # octets between two looks
_TICK = os.sysconf("SC_CLK_TCK")
_OCTETS = re.compile(rb"\b(?:rbytes|wbytes)=(\d+)")


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    computed: float
    moved: dict[int, int]  # by pid; 0: the cgroup's disks


class Activity:
    """Looks every ``interval`` seconds."""

    def __init__(self, tree: ProcessTree, interval: float) -> None:
        self._tree, self._interval = tree, interval
        self._last = self._sample()

    @property
    def due(self) -> float:
        """Monotonic time of the next look."""
        return self._last.at + self._interval

    def look(self) -> bool:
        """Whether there was any since the last look."""
        last, self._last = self._last, self._sample()
        computed = self._last.computed - last.computed
        moved = sum(max(0, now - last.moved.get(pid, 0)) for pid, now in self._last.moved.items())
        return computed >= COMPUTES * (self._last.at - last.at) or moved >= MOVES

    def _sample(self) -> _Sample:
        cgroup = self._tree.cgroup
        pids = sorted(cgroup.pids()) if cgroup else list(self._tree.members())
        moved = {pid: _moved(pid) for pid in pids}
        computed = None
        if cgroup is not None:
            with suppress(OSError, ValueError):
                computed = int(read_whole("cpu.stat", cgroup.fd).split()[1]) / 1e6
            with suppress(OSError):
                moved[0] = sum(map(int, _OCTETS.findall(read_whole("io.stat", cgroup.fd))))
        if computed is None:
            computed = sum(map(_computed, pids))
        return _Sample(time.monotonic(), computed, moved)


def _moved(pid: int) -> int:
    with suppress(OSError, ValueError):
        words = read_whole(f"/proc/{pid}/io").split()
        return int(words[1]) + int(words[3])  # rchar, wchar
    return 0


def _computed(pid: int) -> float:
    with suppress(OSError, ValueError, IndexError):
        fields = read_whole(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        return sum(map(int, fields[11:15])) / _TICK  # utime, stime, and those of children that were waited for
    return 0.0
