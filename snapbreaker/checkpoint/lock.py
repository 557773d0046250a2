"""One snapbreaker at a time on a machine, whatever its store."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress

from snapbreaker.errors import CheckpointError, LockHeld


def runtime_directory() -> str:
    """Where locks live: cleared at boot (file-hierarchy(7))."""
    if given := os.environ.get("SNAPBREAKER_RUNTIME"):
        return given
    return "/run/snapbreaker" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "/tmp") + "/snapbreaker"


def lock_file() -> str:
    """The path of the lock, which is there once a snapbreaker has worked in this boot."""
    return runtime_directory() + "/lock"


def carrying_file() -> str:
    """The path of what is there while what is kept of replaced volumes comes over, or when that has failed."""
    return runtime_directory() + "/carrying"


class Lock:
    """An exclusive flock(2). Forked helpers share it: it is free when the last of them has ended."""

    def __init__(self, purpose: str) -> None:
        self.purpose = purpose
        self.fd = -1

    def __enter__(self) -> Lock:
        path = lock_file()
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                holder = os.pread(self.fd, 200, 0).decode("utf-8", "replace").strip() or "unknown"
                self.close()
                raise LockHeld(
                    f"another snapbreaker is at work ({holder})", "wait until it has ended, then try again"
                ) from None
            self.close()
            hint = "run as root" if error.errno in (errno.EACCES, errno.EPERM) else ""
            raise CheckpointError(f"cannot take the lock {path}: {error.strerror}", hint) from error
        with suppress(OSError):  # it is ours all the same; only who has it others will not be told
            os.ftruncate(self.fd, 0)
            os.pwrite(self.fd, f"pid {os.getpid()}, {self.purpose}\n".encode(), 0)
        return self

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __exit__(self, *exc: object) -> None:
        self.close()
