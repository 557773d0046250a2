"""One log file, followed while others write, rotate and truncate it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from snapbreaker.dataclass import dataclass

CHUNK = 32 * 1024
_KEPT = 4  # files of one name that are read on after they were rotated away: the writer may be late
_MARK = 64  # octets before the place of reading that tell whether a file is still the same
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(slots=True)
class _File:
    fd: int
    identity: tuple[int, int]
    position: int
    mark: bytes = b""


class Tail:
    """What is written to ``path`` from now on. The file may come later, and be renamed, replaced or truncated.

    ``since`` is when the run began, in seconds since the epoch: a file that appears with older content (it was
    moved there) is read from its end.
    """

    def __init__(self, path: str, since: float) -> None:
        self.path, self._since = path, since
        self._files: list[_File] = []
        self._open(beginning=True)

    def close(self) -> None:
        for file in self._files:
            os.close(file.fd)
        self._files.clear()

    def read(self) -> Iterator[bytes]:
        """What there is, in pieces of at most CHUNK octets; the rotated file before the one that came after it."""
        for file in list(self._files):  # first what is open: the next file begins when this one is read
            yield from _rest(file)
        if self._open(beginning=False):
            yield from _rest(self._files[-1])
        while len(self._files) > _KEPT:
            os.close(self._files.pop(0).fd)

    def _open(self, beginning: bool) -> bool:
        """Open what has the name now; whether that is another file than before."""
        try:
            facts = os.stat(self.path)
            identity = (facts.st_dev, facts.st_ino)
            if not stat.S_ISREG(facts.st_mode) or any(file.identity == identity for file in self._files):
                return False
            fd = os.open(self.path, _FLAGS)
        except OSError:
            return False
        facts = os.fstat(fd)
        old = beginning or facts.st_mtime < self._since
        self._files.append(_File(fd, (facts.st_dev, facts.st_ino), facts.st_size if old else 0))
        return True


def _rest(file: _File) -> Iterator[bytes]:
    with suppress(OSError):
        if os.fstat(file.fd).st_size < file.position or not _is_as_read(file):
            file.position, file.mark = 0, b""
        while data := os.pread(file.fd, CHUNK, file.position):
            file.position += len(data)
            file.mark = (file.mark + data)[-_MARK:]
            yield data


def _is_as_read(file: _File) -> bool:
    """False when it was truncated and has grown beyond our place since."""
    return os.pread(file.fd, len(file.mark), file.position - len(file.mark)) == file.mark
