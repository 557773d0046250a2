"""Every call by which snapbreaker changes a file, counted in all its processes; before one something happens.

``snapbreaker.files.ops`` announces what the file engine does. This is for all the rest too, for what makes a
record, a vault, links, a pack, a manifest, and what the guard saves: the functions of Python through which that
goes.

    python3 -m tests.lab.steps TRAIL ERROR PROCESS NAME NUMBER ARGUMENT…

is snapbreaker in which one step fails with ERROR (``EIO`` …). With ``-`` for it none does, and each step is noted
in the file TRAIL. ARGUMENTs are snapbreaker's own.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import functools
import io
import os
import stat
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from snapbreaker.linux import inode, writeback

_OS = (
    *("link", "mkdir", "rename", "replace", "unlink", "rmdir", "symlink", "mknod"),
    *("pwrite", "pwritev", "writev", "copy_file_range", "truncate", "ftruncate", "posix_fallocate"),
    *("fsync", "fdatasync", "utime", "chmod", "fchmod", "chown", "fchown", "setxattr", "removexattr"),
)
_CHANGES = 1  # the direction of requests of ioctl(2) that change something: _IOC_WRITE of <asm-generic/ioctl.h>
_WRITERS = ((inode, "_renameat2"), (inode, "_linkat"), (writeback, "_syncfs"))
_open, _write, _close, _fork = os.open, os.write, os.close, os.fork
FIRST = "0"
TELL, FORK = "tell", "fork"  # what is said to another process or to the kernel, which no disk can break


class Step(NamedTuple):
    """Which call (``number``, from 1) of that ``name`` in a process: ``0`` is the one that began to count, ``0.2``
    the second that it forked. Its threads may take other steps in between each time.
    """

    process: str
    name: str
    number: int

    @property
    def can_fail(self) -> bool:
        return self.name not in (TELL, FORK)


class Steps:
    """``act`` is called ahead of the step ``at``; if it is ``lasting``, ahead of all that follow in that process,
    too. Without any each step is noted in the file ``trail``.
    """

    def __init__(
        self, trail: Path, at: Step | None = None, act: Callable[[], None] = lambda: None, lasting: bool = False
    ) -> None:
        self._trail, self._at, self._act, self._lasting = os.fspath(trail), at, act, lasting
        self._enter(FIRST)

    def _enter(self, process: str) -> None:
        self._process, self._pid = process, os.getpid()
        self._counts = Counter[str]()
        self._struck = False
        self._lock = threading.Lock()

    def take(self, name: str) -> None:
        if os.getpid() != self._pid:
            return  # on its way to another program
        with self._lock:
            self._counts[name] += 1
            step = Step(self._process, name, self._counts[name])
        if self._at is None:
            self._note(step)
        elif step == self._at or (self._struck and self._lasting and step.can_fail):
            self._struck = True
            self._act()

    def fork(self) -> int:
        """In place of ``os.fork``."""
        self.take(FORK)
        pid = _fork()
        if pid == 0:
            self._enter(f"{self._process}.{self._counts[FORK]}")
        return pid

    def _note(self, step: Step) -> None:
        # The guard holds no descriptor that it does not know.
        fd = _open(self._trail, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        _write(fd, f"{step.process} {step.name} {step.number}\n".encode())
        _close(fd)


def read_trail(trail: Path) -> list[Step]:
    """What was noted: the steps in the order in which they were taken."""
    lines = (line.split() for line in trail.read_text().splitlines())
    return [Step(process, name, int(number)) for process, name, number in lines]


@contextmanager
def counted(steps: Steps) -> Iterator[Steps]:
    """While it lasts every step is taken through ``steps``; in a process that is forked meanwhile to its end."""
    genuine: list[tuple[Any, str, Any]] = []

    def wrap(owner: Any, name: str, named: Callable[..., str] | None = None) -> None:
        function = getattr(owner, name)

        @functools.wraps(function)
        def step(*args: Any, **more: Any) -> Any:
            if called := named(*args, **more) if named else name:
                steps.take(called)
            return function(*args, **more)

        genuine.append((owner, name, function))
        setattr(owner, name, step)

    for name in _OS:
        wrap(os, name)
    wrap(os, "write", lambda fd, *_: "write" if stat.S_ISREG(os.fstat(fd).st_mode) else TELL)
    wrap(os, "open", lambda path, flags, *_, **__: "open" if flags & (os.O_CREAT | os.O_TRUNC) else "")
    wrap(fcntl, "ioctl", lambda fd, request, *_: "ioctl" if request >> 30 & 3 == _CHANGES else "")
    for module, name in _WRITERS:
        wrap(module, name)
    genuine += [(builtins, "open", open), (os, "fork", os.fork)]
    builtins.open = _opener(steps)
    os.fork = steps.fork
    try:
        yield steps
    finally:
        for owner, name, function in reversed(genuine):
            setattr(owner, name, function)


def _opener(steps: Steps) -> Any:
    plain = io.open

    class File(io.FileIO):
        def write(self, data: Any) -> Any:
            steps.take("write")
            return super().write(data)

    @functools.wraps(plain)
    def opened(path: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        if mode != "wb" or args or more:
            return plain(path, mode, *args, **more)
        steps.take("open")
        return io.BufferedWriter(File(path, "w"))

    return opened


def fail(code: int) -> NoReturn:
    raise OSError(code, os.strerror(code))


def main() -> None:
    trail, code, process, name, number = sys.argv[1:6]
    del sys.argv[1:6]
    at = None if code == "-" else Step(process, name, int(number))
    from snapbreaker.cli.main import launch

    with counted(Steps(Path(trail), at, lambda: fail(getattr(errno, code)))):
        launch()


if __name__ == "__main__":
    main()
