"""Free space while the command runs: the breaker trips while there is still enough left to roll back with."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NoReturn, Self

from snapbreaker.guard.saved import PACKS
from snapbreaker.issue import Issue, IssueType
from snapbreaker.linux.descriptors import close_all_but
from snapbreaker.linux.process import die_with_parent

EVERY = 0.25  # s
FLOOR = 64 << 20  # bytes that must stay free; less where less than eight times that was free at the start
_PART = 8


class SpaceWatch:
    """A process that looks at the free space of some volumes, since the monitor does nothing but watch.

    ``vaults`` are mount points with their vaults: what a guard has saved there has to be written once more to
    bring it back. Use it as a context manager around the run. ``exclude`` is told its pid: it is none of the
    command's.
    """

    def __init__(self, vaults: Mapping[str, Sequence[str]], exclude: Callable[[int], None]) -> None:
        self._vaults = vaults
        self._floors = {point: min(FLOOR, _free(point) // _PART) for point in vaults}
        self._exclude = exclude
        self._pid = self._fd = -1

    def __enter__(self) -> Self:
        self._fd, told = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            _be_watch(self._floors, self._vaults, told)
        os.close(told)
        self._exclude(self._pid)
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._fd)

    @property
    def watch_fds(self) -> dict[int, Callable[[], Issue]]:
        """What becomes readable when space runs out, or nobody looks any more."""
        return {self._fd: self._issue}

    def _issue(self) -> Issue:
        low = os.fsdecode(os.read(self._fd, 1 << 16))
        if not low:
            reason = "the process that watches the free space has died"
            return Issue(IssueType.INTERRUPTED, reason, "space", time=time.time())
        left, floor = _free(low) >> 20, (self._floors[low] + _saved(self._vaults[low])) >> 20
        reason = f"only {left} MiB are left free on {low}: less than {floor} MiB would endanger the rollback"
        return Issue(IssueType.ERROR, reason, "space", time=time.time())


def _be_watch(floors: Mapping[str, int], vaults: Mapping[str, Sequence[str]], told: int) -> NoReturn:
    try:
        die_with_parent(signal.SIGKILL)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        close_all_but({told})
        while True:
            for point, floor in floors.items():
                if _free(point) < floor + _saved(vaults[point]):
                    os.write(told, os.fsencode(point))
                    os._exit(0)
            time.sleep(EVERY)
    finally:
        os._exit(0)


def _saved(vaults: Sequence[str]) -> int:
    """Bytes that the guards of some vaults have saved."""
    octets = 0
    for vault in vaults:
        for name in PACKS:
            with suppress(OSError):
                octets += os.stat(f"{vault}/{name}").st_size
    return octets


def _free(mountpoint: str) -> int:
    """Bytes that anybody can use; none is missing where that cannot be told."""
    try:
        facts = os.statvfs(mountpoint)
    except OSError:
        return 1 << 62
    return facts.f_bavail * facts.f_frsize
