"""Processes of a run that are in none of its cgroups and no descendants of ours any more: jobs of at(1), daemons
that were left running when the run was committed. The environment that they were started with tells. Jobs of
cron(8) have none of the run's; what they execute tells (``cron``).
"""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from snapbreaker.dataclass import dataclass
from snapbreaker.linux.pidfd import send_signal
from snapbreaker.linux.process import Process, cgroup_of, has_environment, is_alive, process, processes
from snapbreaker.monitor.process_tree import MARKER
from snapbreaker.system.owners import is_session, our_units, unit_in, unit_of
from snapbreaker.system.units import GROUND

_TERM = 3.0  # s to end by itself
_POLL = 0.01
_HEAD = 1 << 16  # bytes of a script that are looked at
SPOOLS = ("/var/spool/cron/atjobs", "/var/spool/at", "/var/spool/atjobs")  # where atd(8) keeps its jobs


@dataclass(frozen=True, slots=True)
class Stray:
    process: Process
    unit: str
    line: str = ""  # the file that told cron(8) to run it

    def __str__(self) -> str:
        where = f" of {self.unit}" if self.unit else ""
        line = f", from {self.line}" if self.line else ""
        return f"{self.process.comm} (pid {self.process.pid}{where}{line})"


Jobs = Callable[[], Mapping[int, str]]  # pid and file of each process that cron(8) has begun for the run


def find(run_id: str, by_cron: Jobs = dict) -> list[Stray]:
    """Processes with the run's marker in their environment, or in the job of at(1) that they read, and those
    ``by_cron``; never this process or its ancestors, nor what a unit of GROUND or somebody else's login holds.
    """
    marker = f"{MARKER}={run_id}".encode()
    seen = processes()
    ours = _ancestors(seen)
    found = [
        pid
        for pid, one in sorted(seen.items())
        if not one.dead and pid not in ours and (has_environment(pid, marker) or reads_job(pid, marker))
    ]
    jobs = {pid: file for pid, file in by_cron().items() if pid in seen and pid not in ours}
    marked = [
        Stray(seen[pid], unit_of(pid)) for pid in found if pid not in jobs and not _is_others(pid, seen, marker)
    ]
    return marked + [Stray(seen[pid], unit_of(pid), file) for pid, file in jobs.items()]


def has_jobs(run_id: str) -> bool:
    """Whether jobs of at(1) that the run has submitted wait for their time."""
    marker = f"{MARKER}={run_id}".encode()
    for spool in SPOOLS:
        with suppress(OSError):
            for name in os.listdir(spool):
                if _holds(os.path.join(spool, name), marker):
                    return True
    return False


def _is_others(pid: int, seen: Mapping[int, Process], marker: bytes) -> bool:
    """Whether it is in a unit of GROUND, or in a login that another user opened, not the run.

    An environment does not only descend: systemctl(1) import-environment gives it to whatever is started later.
    """
    cgroup = cgroup_of(pid) or ""
    unit = unit_in(cgroup)
    if unit in GROUND:
        return True
    if not is_session(unit) or unit in our_units():
        return False
    user = _user_slice(cgroup)
    if user and not unit.startswith("user@") and user == _user_slice(cgroup_of(os.getpid()) or ""):
        return False
    first = min((one for one in seen.values() if unit_of(one.pid) == unit), key=lambda one: (one.start, one.pid))
    return not has_environment(first.pid, marker)


def _user_slice(cgroup: str) -> str:
    return next((part for part in cgroup.split("/") if part.startswith("user-") and part.endswith(".slice")), "")


def reads_job(pid: int, marker: bytes) -> bool:
    """Whether its standard input is a script that sets the marker: atd(8) has a shell read the job, which begins
    with the environment that it was submitted from, odd characters escaped by backslashes.

    Nothing else is opened: that could wait for a server which is gone, or rewind a tape.
    """
    link = f"/proc/{pid}/fd/0"
    try:
        if not os.readlink(link).startswith(tuple(f"{spool}/" for spool in SPOOLS)):
            return False
    except OSError:
        return False
    return _holds(link, marker)


def _holds(path: str, marker: bytes) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        return marker in os.pread(fd, _HEAD, 0).replace(b"\\", b"")
    except OSError:
        return False
    finally:
        os.close(fd)


def end(run_id: str, gently: bool, by_cron: Jobs = dict) -> list[str]:
    """Kill them until none is left; what was killed, in words. ``gently``: SIGTERM and a few seconds first."""
    ended: dict[int, str] = {}
    if gently:
        for stray in _signalled(find(run_id, by_cron), signal.SIGTERM, ended):
            _wait(stray, _TERM)
    for _ in range(100):
        for stray in _signalled(find(run_id, by_cron), signal.SIGKILL, ended):
            _wait(stray, 1.0)
        if not find(run_id, by_cron):
            break
    return list(ended.values())


def _signalled(strays: list[Stray], number: int, ended: dict[int, str]) -> list[Stray]:
    for stray in strays:
        ended.setdefault(stray.process.pid, str(stray))
        with suppress(PermissionError):
            send_signal(stray.process.identity, number)
    return strays


def _wait(stray: Stray, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while is_alive(stray.process.identity) and time.monotonic() < deadline:
        time.sleep(_POLL)


def _ancestors(seen: dict[int, Process]) -> set[int]:
    found = {1, 2}
    pid = os.getpid()
    while pid and pid not in found:
        found.add(pid)
        one = seen.get(pid) or process(pid)
        pid = one.parent if one else 0
    return found
