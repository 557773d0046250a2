"""Unit tests start no external program: they are quick, need no root, and run on any machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

STARTS = frozenset({"subprocess.Popen", "os.posix_spawn", "os.system", "os.exec"})


class RealCommand(BaseException):
    """A unit test started a program. Not an Exception, so that no code under test swallows it."""


class _Guard:
    """An audit hook (PEP 578) cannot be removed, so it is added once and switched."""

    def __init__(self) -> None:
        self.armed = False
        self.seen: list[str] = []
        self.pid = os.getpid()
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.armed or event not in STARTS:
            return
        what = f"{event}: {arguments[0]!r} {arguments[1]!r}" if len(arguments) > 1 else f"{event}: {arguments!r}"
        if os.getpid() != self.pid:
            # A forked child must not unwind through pytest.
            os.write(2, f"unit test started a program in a child: {what}\n".encode())
            os._exit(99)
        self.seen.append(what)
        raise RealCommand(f"{what}; mark the test real_commands, or move it to tests/fs")


_guard = _Guard()


@pytest.fixture(autouse=True)
def no_real_commands(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that starts a program, unless it is marked ``real_commands``."""
    _guard.armed = request.node.get_closest_marker("real_commands") is None
    _guard.seen.clear()
    yield
    _guard.armed = False
    assert not _guard.seen, f"unit test started a program: {_guard.seen}"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Its reading and its writing end; a test may close them."""
    read, write = os.pipe()
    yield read, write
    for fd in (read, write):
        try:
            os.close(fd)
        except OSError:
            continue


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"
