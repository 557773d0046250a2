"""One log file, followed while others write, rotate and truncate it."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from snapbreaker.dataclass import dataclass

CHUNK = 32 * 1024
AT_ONCE = 8 * CHUNK  # octets read in one go: who writes without end does not keep us from all else
_KEPT = 4  # files of one name that are read on after they were rotated away: the writer may be late
_MARK = 64  # octets before the place of reading that tell whether a file is still the same
_COARSE = 2.0  # s by which the time of a file may be behind our clock (FAT; Linux' own tick is 4 ms)
_NEIGHBOURS = 4096  # files of a directory whose sizes are noted
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(slots=True)
class _File:
    fd: int
    identity: tuple[int, int]
    position: int
    mark: bytes


class Tail:
    """What is written to ``path`` from now on. The file may come later, and be renamed, replaced or truncated.

    ``since`` is when the run began, in seconds since the epoch: a file that appears with older content (it was
    moved there, or a symbolic link was) is read from where it ended then, which is known of the files beside this
    one and beside what the link pointed to. ``behind``: there is more to read at once. ``missing``: why it has
    never been read, empty when it was.
    """

    def __init__(self, path: str, since: float) -> None:
        self.path, self._since = path, since
        self._made = time.monotonic()
        self.behind = False
        self.missing = "is no file"
        self._files: list[_File] = []
        self._ends = {
            identity: size
            for directory in {os.path.dirname(path), os.path.dirname(os.path.realpath(path))}
            for identity, size in _sizes(directory)
        }
        self._open(beginning=True)

    def close(self) -> None:
        for file in self._files:
            os.close(file.fd)
        self._files.clear()

    def read(self) -> Iterator[bytes]:
        """What there is, AT_ONCE at most, in pieces of CHUNK; a rotated file before the one that came after it."""
        left = AT_ONCE
        for data in self._all():
            yield data
            left -= len(data)
            if left <= 0:
                break
        self.behind = left <= 0
        if self.behind:
            self._open(beginning=False)  # before it is rotated away; read when its turn comes
            return
        while len(self._files) > _KEPT:
            os.close(self._files.pop(0).fd)

    def _all(self) -> Iterator[bytes]:
        for file in list(self._files):  # first what is open: the next file begins when this one is read
            yield from _rest(file)
        if self._open(beginning=False):
            yield from _rest(self._files[-1])

    def _open(self, beginning: bool) -> bool:
        """Open what has the name now; whether that is another file than before."""
        try:
            facts = os.stat(self.path)
            identity = (facts.st_dev, facts.st_ino)
            if not stat.S_ISREG(facts.st_mode) or any(file.identity == identity for file in self._files):
                return False
            fd = os.open(self.path, _FLAGS)
        except OSError as error:
            self.missing = self.missing and (error.strerror or str(error))
            return False
        self.missing = ""
        facts = os.fstat(fd)
        identity = (facts.st_dev, facts.st_ino)
        old = beginning or facts.st_mtime < self._began()
        place = facts.st_size if old else min(self._ends.pop(identity, 0), facts.st_size)
        self._files.append(_File(fd, identity, place, _mark(fd, place)))
        return True

    def _began(self) -> float:
        """When the run began, by the clock of then and by that of now: it may have been set meanwhile."""
        return min(self._since, time.time() - (time.monotonic() - self._made)) - _COARSE


def _sizes(directory: str) -> Iterator[tuple[tuple[int, int], int]]:
    """Of the files of a directory, by device and inode."""
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in islice(entries, _NEIGHBOURS):
            if entry.is_file(follow_symlinks=False):
                facts = entry.stat(follow_symlinks=False)
                yield (facts.st_dev, facts.st_ino), facts.st_size


def _rest(file: _File) -> Iterator[bytes]:
    with suppress(OSError):
        if os.fstat(file.fd).st_size < file.position or _mark(file.fd, file.position) != file.mark:
            file.position, file.mark = 0, b""  # truncated, and perhaps grown beyond our place since
        while data := os.pread(file.fd, CHUNK, file.position):
            file.position += len(data)
            file.mark = (file.mark + data)[-_MARK:]
            if data[0] == 0:  # its writer has kept its place when it was truncated, and left a hole before it
                data = data.lstrip(b"\0")
                if not data:
                    _over_hole(file)
                    continue
            yield data


def _over_hole(file: _File) -> None:
    try:
        place = os.lseek(file.fd, file.position, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:  # no more data
            raise
        place = os.fstat(file.fd).st_size
    if place > file.position:
        file.position, file.mark = place, _mark(file.fd, place)


def _mark(fd: int, place: int) -> bytes:
    """What stands before ``place``, by which a file is known again."""
    size = min(place, _MARK)
    return os.pread(fd, size, place - size)
