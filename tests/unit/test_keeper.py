"""Who holds what is in a sandbox is noted, or ends with who started it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from snapbreaker.linux.process import Identity, is_alive
from snapbreaker.sandbox import keeper
from snapbreaker.sandbox.upper import Uppers
from tests.fs.processes import wait_for

Noted = dict[str, Any]


@pytest.fixture
def uppers(tmp_path: Path) -> Iterator[Uppers]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    yield Uppers({0: fd})
    os.close(fd)


def _started(uppers: Uppers, note: Callable[[Noted], None]) -> Identity:
    """By another process, which is dead then."""
    told, tell = os.pipe()

    def noting(noted: Noted) -> None:
        os.write(tell, " ".join(map(str, noted["keeper"])).encode())
        note(noted)

    pid = os.fork()
    if pid == 0:
        try:
            keeper.start(uppers, noting)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(tell)
    with open(told, "rb") as file:
        number, start = map(int, file.read().split())
    return Identity(number, start)


def test_one_that_is_noted_stays(uppers: Uppers) -> None:
    one = _started(uppers, lambda noted: None)
    assert is_alive(one)
    os.kill(one.pid, signal.SIGKILL)


def _die(noted: Noted) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fail(noted: Noted) -> None:
    raise OSError("no space")


@pytest.mark.parametrize("end", [_die, _fail])
def test_one_that_is_not_noted_ends(uppers: Uppers, end: Callable[[Noted], None]) -> None:
    one = _started(uppers, end)
    wait_for(lambda: not is_alive(one))
