"""A person at a terminal, which is a pty of the test."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import time
from pathlib import Path
from typing import Any

from tests.fs.processes import Watcher


class Operator:
    """A person at a terminal of 33 lines and ``columns``, with snapbreaker in its foreground."""

    def __init__(self, directory: Path, *argv: str, columns: int = 77, **options: Any) -> None:
        self.master, slave = os.openpty()
        self.resize(33, columns)
        self.settings = termios.tcgetattr(slave)
        self.watcher = Watcher(
            directory,
            {"argv": argv, **options},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            preexec_fn=lambda: os.login_tty(os.dup(slave)),
        )
        self.slave = slave
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def see(self, text: bytes, seconds: float = 10) -> None:
        """Wait until the terminal has shown ``text``."""
        if text not in self.seen:
            self.seen += see(self.master, text, seconds)

    def finish(self) -> dict[str, Any]:
        found = self.watcher.finish()
        assert termios.tcgetattr(self.slave) == self.settings
        while select.select([self.master], [], [], 0)[0]:
            self.seen += os.read(self.master, 4096)
        os.close(self.slave)
        os.close(self.master)
        return found


def see(master: int, text: bytes, seconds: float = 15) -> bytes:
    """Read until ``text`` is shown; all that was."""
    seen = b""
    end = time.monotonic() + seconds
    while text not in seen:
        assert time.monotonic() < end, seen
        if select.select([master], [], [], 0.1)[0]:
            seen += os.read(master, 4096)
    return seen
