"""An unprivileged user who swaps names under a program at work, as fast as the kernel lets him."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NOBODY = 65534
_EXCHANGE = 2
_renameat2 = ctypes.CDLL(None, use_errno=True).renameat2


class Racer:
    """``swaps`` counts how often names were exchanged."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def swaps(self) -> int:
        return int.from_bytes(self._shared[:8], "little")

    @contextmanager
    def at_work(self, directory: Path, outside: Path) -> Iterator[None]:
        """While it lasts names in ``directory`` and below it are exchanged with symbolic links to ``outside``, and
        files with hard links to one there. He owns the directory, and that file.
        """
        home, other = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (directory, outside))
        pid = os.fork()
        if pid == 0:
            try:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                self._race(home, other)
            finally:
                os._exit(1)
        os.close(home)
        os.close(other)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _race(self, home: int, outside: int) -> None:
        with suppress(FileExistsError):
            os.symlink("../../outside", "trap", dir_fd=home)
        number = 0
        while True:
            number += 1
            self._swap(home, b"work", b"trap", number)
            self._swap(home, b"work/inner", b"trap", number)
            if number % 4 == 0:
                self._link(home, outside, number)
            self._swap(home, b"work", b"trap", number)

    def _swap(self, home: int, one: bytes, other: bytes, number: int) -> None:
        if not _renameat2(home, one, home, other, _EXCHANGE):
            self._shared[:8] = number.to_bytes(8, "little")

    def _link(self, home: int, outside: int, number: int) -> None:
        with suppress(OSError):
            os.link("own", "bait", src_dir_fd=outside, dst_dir_fd=home, follow_symlinks=False)
        self._swap(home, b"bait", b"work/file%d" % (number % 10), number)
