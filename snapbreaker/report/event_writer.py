"""Writes the events of ``--json``."""

from __future__ import annotations

import base64
import codecs
import json
import os
import select
import threading
import time
from dataclasses import asdict
from typing import Any

from snapbreaker.monitor.streams import Relay
from snapbreaker.report.events import Event, Output, Progress
from snapbreaker.voice import PATIENCE


class EventWriter:
    """Writes events to a descriptor, each line by one write(2), nothing buffered. Usable from several threads.

    ``id`` is the checkpoint's, empty until there is one. A reader that is gone does not end the run: ``broken``
    then holds the error and later events are dropped; whether that matters is the caller's to decide.
    ``relay`` to ``fd``, which output goes through: a reader that takes nothing is waited for PATIENCE seconds.
    Not for signal handlers (a lock is held while writing).
    """

    def __init__(self, fd: int, id: str = "", relay: Relay | None = None) -> None:
        self.id = id
        self.broken: OSError | None = None
        self._fd, self._relay = fd, relay
        self._lock = threading.Lock()
        self._tails: dict[str, bytes] = {}

    def write(self, event: Event) -> None:
        """Write one event, stamped with the time and the id."""
        with self._lock:
            self._flush_tails()
            self._put(self._line(event.event, asdict(event)))

    def output(self, source: str, data: bytes) -> None:
        """Write a piece of output (an ``OutputSink`` of the monitor).

        An incomplete UTF-8 character at its end waits for the source's next piece or the next other event.
        """
        with self._lock:
            self._put(self._encode_output(source, data))

    def encode_output(self, source: str, data: bytes) -> bytes:
        """The event of a piece of output, for somebody else to write; as ``output`` otherwise."""
        with self._lock:
            return self._encode_output(source, data)

    def progress(self, phase: str, entries: int, octets: int = 0) -> None:
        """The ``Progress`` of long work."""
        self.write(Progress(phase, entries, octets))

    def _encode_output(self, source: str, data: bytes) -> bytes:
        data = self._tails.pop(source, b"") + data
        end = len(data) - incomplete_tail(data)
        if end < len(data):
            self._tails[source] = data[end:]
        return self._output_line(source, data[:end]) if end else b""

    def _flush_tails(self) -> None:
        while self._tails:
            self._put(self._output_line(*self._tails.popitem()))

    def _output_line(self, source: str, data: bytes) -> bytes:
        try:
            content = {"text": data.decode("utf-8")}
        except UnicodeDecodeError:
            content = {"base64": base64.b64encode(data).decode("ascii")}
        return self._line(Output.event, {"source": source, **content})

    def _line(self, kind: str, body: dict[str, Any]) -> bytes:
        head = {"event": kind, "time": round(time.time(), 6), "id": self.id}
        return (json.dumps({**head, **body}, separators=(",", ":")) + "\n").encode("ascii")

    def _put(self, line: bytes) -> None:
        if self.broken is not None or not line:
            return
        if self._relay is not None:
            self._relay.put(line)
            self._relay.finish(PATIENCE)
            return
        try:
            write_all(self._fd, line)
        except OSError as error:
            self.broken = error


def write_all(fd: int, data: bytes) -> None:
    """write(2) until all is written: the rest follows where a signal or a full pipe cut it short.

    Waits where the descriptor is non-blocking and full: it may be shared, and is left as it is. Raises OSError.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            poller = select.poll()
            poller.register(fd, select.POLLOUT)
            poller.poll()


def incomplete_tail(data: bytes) -> int:
    """How many bytes at the end of ``data`` are the beginning of an unfinished UTF-8 character: 0 to 3."""
    for length in range(1, min(3, len(data)) + 1):
        byte = data[-length]
        if byte & 0xC0 == 0x80:
            continue
        if byte < 0xC0:
            return 0
        if byte == 0xED and length == 2 and data[-1] >= 0xA0:  # Python waits for the rest of a surrogate
            return 0
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            decoder.decode(data[-length:])
        except UnicodeDecodeError:
            return 0
        return len(decoder.getstate()[0])
    return 0
