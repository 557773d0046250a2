"""The locks of package and account tools, held while a sandbox exists.

The lock files of an overlay are files of their own, so what runs inside and what runs outside do not wait for each
other. So the real ones are ours, as *open file description* locks (fcntl(2), Linux 3.15): unlike those of a
process they stay when we close another descriptor of the same file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from contextlib import suppress

from snapbreaker.backend import Volume
from snapbreaker.errors import CheckpointError
from snapbreaker.files.policy import PathClass, Policy
from snapbreaker.linux.locks import holder_text
from snapbreaker.paths import is_below, relative

FILES = (
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/apt/lists/lock",
    "/var/cache/apt/archives/lock",
    (ACCOUNTS := "/etc/.pwd.lock"),
)
_WHOLE_FILE = struct.pack("@hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_NOTHING = struct.pack("@hhqqi0q", fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0)


class Locks:
    """Those that were there to be taken."""

    def __init__(self) -> None:
        self._fds: dict[str, int] = {}

    @classmethod
    def take(cls, volumes: Sequence[tuple[Volume, Policy]], files: Sequence[str] = FILES) -> Locks:
        """All that lie in ``volumes``. Raises CheckpointError, which names who has one; then none is held."""
        locks = cls()
        try:
            for path in files:
                if _covered(os.path.realpath(path), volumes):
                    locks._take(path)
        except BaseException:
            locks.close()
            raise
        return locks

    def _take(self, path: str) -> None:
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOTDIR):
                return  # nobody uses it, or it is not ours to use
            raise
        self._fds[path] = fd
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _WHOLE_FILE)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise CheckpointError(
                f"{path} is locked by {holder_text(fd)}",
                "wait until it has ended: what it does would be in conflict",
            ) from error

    def let_services_start(self) -> None:
        """Let go of the lock that systemd waits for, without end, when a unit has DynamicUser= (lckpwdf(3))."""
        if (fd := self._fds.pop(ACCOUNTS, -1)) >= 0:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _NOTHING)  # also for those who have a copy of the descriptor
            os.close(fd)

    def close(self) -> None:
        """Let go of all. Idempotent."""
        for fd in self._fds.values():
            with suppress(OSError):
                os.close(fd)
        self._fds = {}


def _covered(path: str, volumes: Sequence[tuple[Volume, Policy]]) -> bool:
    around = [(volume, policy) for volume, policy in volumes if is_below(path, volume.root)]
    if not around:
        return False
    volume, policy = max(around, key=lambda one: len(one[0].root))
    return policy.of(os.fsencode(relative(path, volume.root))) is PathClass.RESTORE
