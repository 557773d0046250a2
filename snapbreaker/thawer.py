"""A helper process that lets frozen writers go when snapbreaker dies while it holds them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import TracebackType
from typing import NoReturn

from snapbreaker.linux.pidfd import send_signal
from snapbreaker.linux.process import Identity

_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}


class Thawer:
    """Told of each process and cgroup *before* it is frozen. The end of its pipe without a farewell is our death.

    It is forked, makes system calls only, and has a session of its own: what kills our process group, or a Ctrl-C,
    does not reach it.
    """

    def __init__(self) -> None:
        reading, self._pipe = os.pipe2(os.O_CLOEXEC)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            self._pid = os.fork()
            if self._pid == 0:
                _serve(reading)  # never returns
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(reading)

    def add_process(self, identity: Identity) -> None:
        self._tell(b"p%d %d" % identity)

    def add_cgroup(self, directory: str) -> None:
        self._tell(b"c" + os.fsencode(directory))

    def farewell(self) -> None:
        """Everything was let go already: the helper has nothing to do."""
        with suppress(BrokenPipeError):
            self._tell(b"farewell")

    def __enter__(self) -> Thawer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Without a farewell the helper lets everything go now."""
        os.close(self._pipe)
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    def _tell(self, message: bytes) -> None:
        os.write(self._pipe, message + b"\0")


def _serve(reading: int) -> NoReturn:
    """The helper's whole life. Holds no descriptor but its pipe, since ours may be locks."""
    try:
        for ending in _ENDING:
            signal.signal(ending, signal.SIG_IGN)
        os.setsid()
        for number in map(int, os.listdir("/proc/self/fd")):
            if number != reading:
                with suppress(OSError):  # that of the listing is closed already
                    os.close(number)
        told = b""
        while data := os.read(reading, 1 << 16):
            told += data
        messages = told.split(b"\0")[:-1]
        if b"farewell" not in messages:
            for message in messages:
                with suppress(OSError, ValueError):
                    _let_go(message)
    finally:
        os._exit(0)


def _let_go(message: bytes) -> None:
    if message.startswith(b"c"):
        fd = os.open(message[1:] + b"/cgroup.freeze", os.O_WRONLY)
        os.write(fd, b"0")
        os.close(fd)
    else:
        pid, start = message[1:].split()
        send_signal(Identity(int(pid), int(start)), signal.SIGCONT)
