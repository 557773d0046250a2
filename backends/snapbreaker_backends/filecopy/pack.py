"""The pack: one file that holds the data of all others, one after the other, holes left out."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from snapbreaker.files.tree import Extent
from snapbreaker.linux.clone import clone_range, copy_range, data_ranges
from snapbreaker.linux.writeback import start_write_back

# Below this a file is read and written: cheaper than an extent of its own, and than asking where its holes are.
_SMALL = 1 << 16
_BATCH = 1 << 20  # bytes gathered for one write
_PIECES = 1000  # at most so many buffers in one writev(2) (IOV_MAX is 1024)
_BLOCK = 1 << 20
_STRIDE = 8 << 20  # bytes after which the disk is told to begin writing, while more is read


class Shrunk(Exception):
    """The file became shorter while it was read."""


class PackWriter:
    """Appends files' data to a new file at ``path``. Raises OSError (ENOSPC, EIO …) of source and pack alike.

    With ``clone`` data is shared where alignment allows. What is gathered is written at the latest by ``close``.
    """

    def __init__(self, path: str, clone: bool) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.clone = clone
        self.copied = 0  # bytes that were not shared
        self._end = 0  # of what lies in the file
        self._started = 0  # of what the disk was told to write
        self._pieces: list[bytes] = []
        self._gathered = 0
        self._block = os.fstatvfs(self.fd).f_bsize

    @property
    def size(self) -> int:
        """Where the next byte will lie."""
        return self._end + self._gathered

    def add(self, fd: int, size: int, allocated: int) -> tuple[Extent, ...]:
        """The data of an open file of ``size`` bytes, of which ``allocated`` have room on the disk.

        Raises Shrunk when there is less to read than ``size``.
        """
        if size == 0:
            return ()
        if size < _SMALL and allocated >= size:
            return (self._gather(fd, size),)
        return tuple(self._add_range(fd, size, start, end) for start, end in data_ranges(fd, size))

    def close(self) -> None:
        self.flush()
        os.close(self.fd)

    def abort(self) -> None:
        os.close(self.fd)

    def flush(self) -> None:
        while self._pieces:
            written = os.pwritev(self.fd, self._pieces, self._end)
            self._end += written
            self._gathered -= written
            while self._pieces and written >= len(self._pieces[0]):
                written -= len(self._pieces.pop(0))
            if self._pieces:
                self._pieces[0] = self._pieces[0][written:]
        if self._end - self._started >= _STRIDE:
            start_write_back(self.fd, self._started, self._end - self._started)
            self._started = self._end

    def _gather(self, fd: int, size: int, offset: int = 0) -> Extent:
        data = os.pread(fd, size, offset)
        if len(data) < size:
            raise Shrunk
        extent = Extent(offset, self.size, size)
        self._pieces.append(data)
        self._gathered += size
        self.copied += size
        if self._gathered >= _BATCH or len(self._pieces) >= _PIECES:
            self.flush()
        return extent

    def _add_range(self, fd: int, size: int, start: int, end: int) -> Extent:
        length = end - start
        if self.clone and start % self._block == 0 and (length % self._block == 0 or end == size):
            self.flush()
            at = -(-self._end // self._block) * self._block
            if clone_range(fd, start, length, self.fd, at):
                self._end = at + length
                return Extent(start, at, length)
        if length < _SMALL:
            return self._gather(fd, length, start)
        self.flush()
        extent = Extent(start, self._end, length)
        self._copy(fd, start, length)
        self._end += length
        self.copied += length
        return extent

    def _copy(self, fd: int, start: int, length: int) -> None:
        done = copy_range(fd, start, length, self.fd, self._end)
        while done < length:
            data = os.pread(fd, min(_BLOCK, length - done), start + done)
            if not data:
                raise Shrunk
            written = 0
            while written < len(data):
                written += os.pwrite(self.fd, data[written:], self._end + done + written)
            done += len(data)


def can_clone(directory: str) -> bool:
    """Whether files in ``directory`` can share data; tried on a file without a name."""
    try:
        with _nameless(directory) as source, _nameless(directory) as destination:
            block = os.fstatvfs(source).f_bsize
            os.pwrite(source, b"\1" * block, 0)
            return clone_range(source, 0, block, destination, 0)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOSPC, errno.EDQUOT):
            return False
        raise


@contextmanager
def _nameless(directory: str) -> Iterator[int]:
    fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)
