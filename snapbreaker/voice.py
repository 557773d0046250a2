"""Our own words on standard error: a stopped terminal (Ctrl-S) or a pipe that nobody reads does not stop us."""

from __future__ import annotations

from contextlib import suppress
from typing import TextIO

from snapbreaker.monitor.streams import Relay

PATIENCE = 30.0  # s that a reader may take nothing


class Voice:
    """Writes to the file of ``stream``. Waits for its reader, but not for ever; one that is gone is no error."""

    def __init__(self, stream: TextIO, patience: float = PATIENCE) -> None:
        self._stream, self._patience = stream, patience
        self._relay: Relay | None = None
        with suppress(OSError, ValueError):  # no file behind it (a test)
            self._relay = Relay(stream.fileno())

    def write(self, text: str) -> None:
        try:
            self._stream.flush()
            if self._relay is None:
                self._stream.write(text)
                self._stream.flush()
                return
        except OSError:
            return
        self._relay.put(text.encode(self._stream.encoding or "utf-8", "backslashreplace"))
        self._relay.finish(self._patience)
