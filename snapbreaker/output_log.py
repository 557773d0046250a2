"""What the command printed, byte for byte, in the record: one file a stream."""

from __future__ import annotations

import os
from pathlib import Path

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
        if written < len(data):
            self.cut[source] = self.cut.get(source, 0) + len(data) - written

    def _file(self, source: str) -> int:
        if source not in self._files:
            path = self._record / f"{source}.log"
            self._files[source] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return self._files[source]

    def close(self) -> None:
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()
