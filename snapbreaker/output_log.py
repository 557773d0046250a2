"""What the command printed, byte for byte, in the record: one file a source, and an index of the order.

Each line of the index says when a piece came, how long it is, and of which source (as JSON).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from snapbreaker.dataclass import dataclass

INDEX = "output.index"
STREAMS = ("pty", "stdout", "stderr")  # of the command itself
_LONGEST = 1 << 20  # bytes of a piece; the monitor's are shorter
LIMIT = 256 << 20  # bytes a stream; more is counted, not kept


class OutputLog:
    """A sink of the monitor. Writing never stops a run: a full disk only cuts the log short."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self._files: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self.cut: dict[str, int] = {}

    def output(self, source: str, data: bytes) -> None:
        view = memoryview(data)[: max(LIMIT - self._sizes.get(source, 0), 0)]
        written = 0
        try:
            while written < len(view):
                written += os.write(self._file(source), view[written:])
        except OSError:
            pass  # counted below
        self._sizes[source] = self._sizes.get(source, 0) + written
        if written:
            self._note(source, written)
        if written < len(data):
            self.cut[source] = self.cut.get(source, 0) + len(data) - written

    def _note(self, source: str, size: int) -> None:
        line = f"{time.time():.6f} {size} {json.dumps(source)}\n".encode("ascii")
        try:
            os.write(self._open(INDEX), line)
        except OSError:
            return  # a full disk

    def _file(self, source: str) -> int:
        return self._open(file_name(source))

    def _open(self, name: str) -> int:
        if name not in self._files:
            path = self._record / name
            self._files[name] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return self._files[name]

    def close(self) -> None:
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()


def file_name(source: str) -> str:
    """``stdout.log``; of a path or a unit the characters that a name cannot have are %XX."""
    plain = source.encode("utf-8", "surrogateescape")
    safe = "".join(chr(c) if (chr(c).isalnum() and c < 128) or c in b"._@:-" else f"%{c:02X}" for c in plain)
    return f"{safe[-200:]}.log"


def recorded(record: Path) -> dict[str, Path]:
    """The files with what each source said, those of the command's own output first."""
    names = dict.fromkeys(STREAMS)
    try:
        with open(record / INDEX, "rb") as index:
            names.update((noted[2], None) for line in index if (noted := _noted(line)))
    except FileNotFoundError:
        pass  # it said nothing
    paths = {name: record / file_name(name) for name in names}
    return {name: path for name, path in paths.items() if path.exists()}


def _noted(line: bytes) -> tuple[float, int, str] | None:
    """When a piece came, how long it is, and of which source; None where a full disk spoiled that."""
    try:
        when, size, source = line.split(b" ", 2)
        return float(when), min(max(int(size), 0), _LONGEST), str(json.loads(source))
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Piece:
    """``time`` is seconds since the epoch, when it was read."""

    time: float
    source: str
    data: bytes


class OutputReader:
    """Reads a record's output back, in the order in which it came, also while it is being written."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self._files: dict[str, int] = {}
        self._rest = b""

    def read(self) -> Iterator[Piece]:
        """What is new since the last call."""
        while data := self._more(INDEX, _LONGEST):
            whole, feed, rest = (self._rest + data).rpartition(b"\n")
            self._rest = rest
            for line in whole.split(b"\n") if feed else ():
                if noted := _noted(line):
                    when, size, name = noted
                    yield Piece(when, name, self._more(file_name(name), size))

    def rest(self) -> Iterator[Piece]:
        """What the index does not tell of, source by source: nothing, unless it is damaged. After the run."""
        for name in recorded(self._record):
            while data := self._more(file_name(name), _LONGEST):
                yield Piece(0.0, name, data)

    def close(self) -> None:
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()

    def _more(self, name: str, size: int) -> bytes:
        if name not in self._files:
            try:
                self._files[name] = os.open(self._record / name, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return b""
        return os.read(self._files[name], size)
