"""Free space while the command runs: the breaker trips while there is still enough left to roll back with."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn, Self

from snapbreaker.guard.saved import PACKS
from snapbreaker.issue import Issue, IssueType
from snapbreaker.linux.descriptors import close_all_but
from snapbreaker.linux.memory import lock_memory
from snapbreaker.linux.process import die_with_parent

EVERY, NEAR = 0.25, 0.02  # s between two looks: usually, and when less than ``_SAFE`` times the needed is left
FLOOR = 64 << 20  # bytes that must stay free; less where less than eight times that was free at the start
INODES = 1000  # likewise
_PART, _SAFE = 8, 8
_UNLIMITED = 1 << 62

_Point = str | int
"""A mount point, or an open directory of a filesystem that is seen nowhere."""


class _Room(NamedTuple):
    """What anybody can still use: bytes and inodes."""

    octets: int
    inodes: int


class SpaceWatch:
    """A process that looks at the free space of some volumes, since the monitor does nothing but watch.

    ``vaults`` are mount points, or any directories of filesystems, with the vaults there: what a guard has saved
    in one has to be written once more to bring it back. ``uppers`` are open directories of filesystems that hold
    what a command writes in a sandbox. ``gauges`` are those of the backends. Use it as a context manager around
    the run. ``exclude`` is told its pid: it is none of the command's.
    """

    def __init__(
        self,
        vaults: Mapping[str, Sequence[str]],
        exclude: Callable[[int], None],
        uppers: Collection[int] = (),
        gauges: Sequence[Callable[[], str]] = (),
    ) -> None:
        self._vaults: dict[_Point, Sequence[str]] = dict(vaults.items())
        self._vaults.update(dict.fromkeys(uppers, ()))
        self._floors = {point: _floor(_free(point)) for point in self._vaults}
        self._exclude, self._gauges = exclude, tuple(gauges)
        self._pid = self._fd = -1

    def __enter__(self) -> Self:
        self._fd, told = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            _be_watch(self._floors, self._vaults, self._gauges, told)
        os.close(told)
        self._exclude(self._pid)
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._fd)

    def full(self) -> Issue | None:
        """Whether a sandbox is full now: nobody may have looked in the moment when it became so."""
        for point, floor in self._floors.items():
            free = _free(point)
            if isinstance(point, int) and (free.octets < floor.octets or free.inodes < floor.inodes):
                reason = _told(point, free, floor.octets)
                return Issue(IssueType.ERROR, reason, "space", time=time.time())
        return None

    @property
    def watch_fds(self) -> dict[int, Callable[[], Issue]]:
        """What becomes readable when space runs out, or nobody looks any more."""
        return {self._fd: self._issue}

    def _issue(self) -> Issue:
        reason = os.read(self._fd, 1 << 16).decode("utf-8", "backslashreplace")
        if not reason:
            died = "the process that watches the free space has died"
            return Issue(IssueType.INTERRUPTED, died, "space", time=time.time())
        return Issue(IssueType.ERROR, reason, "space", time=time.time())


def _be_watch(
    floors: Mapping[_Point, _Room],
    vaults: Mapping[_Point, Sequence[str]],
    gauges: Sequence[Callable[[], str]],
    told: int,
) -> NoReturn:
    try:
        die_with_parent(signal.SIGKILL)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        close_all_but({told, *(point for point in floors if isinstance(point, int))})
        lock_memory()
        while True:
            near = bool(gauges)
            if why := next(filter(None, (gauge() for gauge in gauges)), ""):
                os.write(told, os.fsencode(why))
                os._exit(0)
            for point, floor in floors.items():
                free, needed = _free(point), floor.octets + _saved(vaults[point])
                near = near or free.octets < needed * _SAFE
                if free.octets < needed or free.inodes < floor.inodes:
                    os.write(told, os.fsencode(_told(point, free, needed)))
                    os._exit(0)
            time.sleep(NEAR if near else EVERY)
    finally:
        os._exit(0)


def _told(point: _Point, free: _Room, needed: int) -> str:
    if free.octets < needed:
        left, least = f"{free.octets >> 20} MiB", f"{needed >> 20} MiB"
    else:
        left, least = f"{free.inodes} inodes", f"{INODES}"
    if isinstance(point, int):
        return f"the sandbox is full: only {left} are left; --upper-size N gives it more, --upper DIR a disk"
    return f"only {left} are left free on {point}: less than {least} would endanger the rollback"


def _saved(vaults: Sequence[str]) -> int:
    """Bytes that the guards of some vaults have saved."""
    octets = 0
    for vault in vaults:
        for name in PACKS:
            with suppress(OSError):
                octets += os.stat(f"{vault}/{name}").st_size
    return octets


def _floor(free: _Room) -> _Room:
    return _Room(min(FLOOR, free.octets // _PART), min(INODES, free.inodes // _PART))


def _free(mountpoint: _Point) -> _Room:
    """Unlimited where it cannot be told; btrfs has no number of inodes."""
    try:
        facts = os.statvfs(mountpoint)
    except OSError:
        return _Room(_UNLIMITED, _UNLIMITED)
    return _Room(facts.f_bavail * facts.f_frsize, facts.f_favail if facts.f_files else _UNLIMITED)
