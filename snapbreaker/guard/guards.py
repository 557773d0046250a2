"""All guards of one run, one for each volume that needs one."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable

from snapbreaker.guard.guard import Guard
from snapbreaker.guard.inodes import InodeSet
from snapbreaker.issue import Issue, IssueType


class Guards:
    """``exclude`` is told the pid of each: it is none of the command's processes."""

    def __init__(self, exclude: Callable[[int], None]) -> None:
        self._exclude = exclude
        self._guards: list[Guard] = []
        self._devices: set[int] = set()

    def has(self, mountpoint: str) -> bool:
        """Whether one guards this filesystem. Two would wait for each other: each asks before the other writes."""
        return os.stat(mountpoint).st_dev in self._devices

    def start(self, mountpoint: str, vault: str, wanted: InodeSet) -> Guard:
        """See ``Guard.start``. It is ours to end."""
        self._devices.add(os.stat(mountpoint).st_dev)
        guard = Guard.start(mountpoint, vault, wanted)
        self._exclude(guard.pid)
        self._guards.append(guard)
        return guard

    def watch_fds(self) -> dict[int, Callable[[], Issue]]:
        """What becomes readable when files may change unseen, and what is to be said then."""
        return {
            fd: functools.partial(_trouble, guard)
            for guard in self._guards
            for fd in (guard.fd, guard.watchdog_fd)
        }

    def close(self) -> None:
        """End them all. Idempotent."""
        while self._guards:
            self._guards.pop().close()


def _trouble(guard: Guard) -> Issue:
    return Issue(IssueType.INTERRUPTED, guard.trouble(), "guard", time=time.time())
