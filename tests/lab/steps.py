"""Every call by which a process changes a file, counted; before one of them something happens.

``snapbreaker.files.ops`` announces what the file engine does. This is for all the rest too, for what makes a
record, a vault, links, a pack and a manifest: the functions of Python through which that goes. Processes that are
forked afterwards go on unharmed.
"""

from __future__ import annotations

import builtins
import fcntl
import functools
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from snapbreaker.linux import inode

_OS = (
    *("link", "mkdir", "rename", "replace", "unlink", "rmdir", "symlink", "mknod"),
    *("write", "pwrite", "pwritev", "writev", "copy_file_range", "truncate", "ftruncate", "posix_fallocate"),
    *("fsync", "fdatasync", "utime", "chmod", "fchmod", "chown", "fchown", "setxattr", "removexattr"),
)
_CHANGES = 1  # the direction of requests of ioctl(2) that change something: _IOC_WRITE of <asm-generic/ioctl.h>
_WRITERS = ("_renameat2", "_syncfs", "_linkat")


class Steps:
    """``act`` is called ahead of step ``at``, the first is 1; 0: only count. ``trail`` are their names."""

    def __init__(self, at: int = 0, act: Callable[[], None] = lambda: None) -> None:
        self.at, self.act = at, act
        self.trail: list[str] = []
        self._process = os.getpid()

    @property
    def count(self) -> int:
        return len(self.trail)

    def take(self, name: str) -> None:
        if os.getpid() != self._process:
            return
        self.trail.append(name)
        if self.count == self.at:
            print(f"step {self.at}: {name}", file=sys.stderr)
            self.act()


@contextmanager
def counted(steps: Steps) -> Iterator[Steps]:
    """While it lasts every step is taken through ``steps``."""
    genuine: list[tuple[Any, str, Any]] = []

    def wrap(owner: Any, name: str, counts: Callable[..., bool] = lambda *_, **__: True) -> None:
        function = getattr(owner, name)

        @functools.wraps(function)
        def step(*args: Any, **more: Any) -> Any:
            if counts(*args, **more):
                steps.take(name)
            return function(*args, **more)

        genuine.append((owner, name, function))
        setattr(owner, name, step)

    for name in _OS:
        wrap(os, name)
    wrap(os, "open", lambda path, flags, *_, **__: bool(flags & (os.O_CREAT | os.O_TRUNC)))
    wrap(fcntl, "ioctl", lambda fd, request, *_: request >> 30 & 3 == _CHANGES)
    for name in _WRITERS:
        wrap(inode, name)
    genuine.append((builtins, "open", open))
    builtins.open = _opener(steps)
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
