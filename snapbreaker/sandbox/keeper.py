"""A process that does nothing but hold what a command did in its sandbox, until its end is decided."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

from snapbreaker.checkpoint.record import Record
from snapbreaker.errors import CheckpointError
from snapbreaker.linux.descriptors import close_all_but
from snapbreaker.linux.pidfd import send_signal
from snapbreaker.linux.process import Identity, boot_id, identify, is_alive
from snapbreaker.sandbox.upper import Uppers

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_DEAF = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def start(uppers: Uppers) -> dict[str, Any]:
    """Fork one; what is to be noted of it. Raises OSError."""
    pid = os.fork()
    if pid == 0:
        _hold(set(uppers.fds.values()))
    identity = identify(pid)
    assert identity is not None  # our child, not yet waited for
    return {"keeper": list(identity), "boot": boot_id(), "uppers": {str(n): fd for n, fd in uppers.fds.items()}}


def _hold(fds: set[int]) -> NoReturn:
    try:
        os.setsid()
        for number in _DEAF:
            signal.signal(number, signal.SIG_IGN)
        os.chdir("/")
        close_all_but(fds)
        while True:
            signal.pause()
    finally:
        os._exit(0)


def opened(record: Record) -> Uppers:
    """What is held of the run of ``record``, for the caller to close. Raises CheckpointError when it is gone."""
    noted = record.status.get("sandbox", {})
    keeper = _keeper(noted)
    if keeper is None:
        raise CheckpointError(
            f"what checkpoint {record.id} had tried is gone with the process that held it (a reboot?)",
            f"nothing of it came to the machine; snapbreaker rollback {record.id} closes it",
        )
    fds: dict[int, int] = {}
    try:
        for number, fd in noted["uppers"].items():
            fds[int(number)] = os.open(f"/proc/{keeper.pid}/fd/{fd}", _DIRECTORY)
    except OSError as error:
        close(fds)
        raise CheckpointError(f"what checkpoint {record.id} holds cannot be opened: {error.strerror}") from error
    return Uppers(fds)


def close(fds: Mapping[int, int]) -> None:
    for fd in fds.values():
        os.close(fd)


def kill(noted: dict[str, Any]) -> None:
    """Let go of what is held. Idempotent."""
    keeper = _keeper(noted)
    if keeper is not None:
        with suppress(PermissionError):
            send_signal(keeper, signal.SIGKILL)


def _keeper(noted: dict[str, Any]) -> Identity | None:
    if not noted or noted["boot"] != boot_id():
        return None
    keeper = Identity(*noted["keeper"])
    return keeper if is_alive(keeper) else None
