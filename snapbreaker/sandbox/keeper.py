"""A process that does nothing but hold what a command did in its sandbox, until its end is decided."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
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


def start(uppers: Uppers, note: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Fork one; what was noted of it by ``note``. Raises OSError, and what ``note`` raises: then there is none.

    It ends with us until it is noted: nobody else would ever end it.
    """
    waiting, tell = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
        if pid == 0:
            _hold(set(uppers.fds.values()), waiting)
        identity = identify(pid)
        assert identity is not None  # our child, not yet waited for
        fds = {str(number): fd for number, fd in uppers.fds.items()}
        noted = {"keeper": list(identity), "boot": boot_id(), "uppers": fds}
        note(noted)
        os.write(tell, b"+")
        return noted
    finally:
        os.close(waiting)
        os.close(tell)


def _hold(fds: set[int], waiting: int) -> NoReturn:
    try:
        os.setsid()
        for number in _DEAF:
            signal.signal(number, signal.SIG_IGN)
        os.chdir("/")
        close_all_but({*fds, waiting})
        is_noted = os.read(waiting, 1) == b"+"
        os.close(waiting)
        while is_noted:
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
