"""The lookout's own life: waits until something happens, reads it, tells it."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from snapbreaker.errors import SnapbreakerError
from snapbreaker.issue import Issue
from snapbreaker.linux.inotify import Inotify
from snapbreaker.sources.journal import JournalSource
from snapbreaker.sources.messages import LONGEST, Kind, Message
from snapbreaker.sources.tail import Tail
from snapbreaker.sources.units import UnitWatch

_LOOK = 0.25  # s until files are looked at unasked: of a directory that is not there yet nothing is heard


class Watch:
    """``channel`` is the way to the monitor; its end is ours."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._inotify = Inotify()
        self._tails: dict[Tail, Kind] = {}
        self._heard: set[str] = set()  # directories that inotify watches
        self._journal: JournalSource | None = None
        self._units: UnitWatch | None = None
        self._left_out = ""
        self._end_at: float | None = None  # the command has ended: when to say that all is told

    def open(self, journal: bool, named: Sequence[str], units: bool) -> None:
        """Raises OSError where the journal cannot be read. That units cannot be followed is only told."""
        if units:
            try:
                self._units = UnitWatch()
            except (OSError, SnapbreakerError) as error:
                self._left_out = f"units are not followed: {error}"
        if journal:
            self._journal = JournalSource(named, self._units.touched if self._units else lambda unit: False)

    @property
    def knows_units(self) -> bool:
        return self._units is not None

    def follow(self, logs: Iterable[str], quiet: Iterable[str]) -> None:
        """Follow log files from now on."""
        since = time.time()
        for paths, kind in ((logs, Kind.OUTPUT), (quiet, Kind.QUIET)):
            self._tails.update((Tail(path, since), kind) for path in paths)
        self._listen()

    def serve(self) -> None:
        """Until the monitor is gone."""
        if self._left_out:
            self._tell(Message.warning(self._left_out))
        while True:
            ready = self._wait()
            if self._channel.fileno() in ready:
                if not self._channel.recv(LONGEST):
                    return
                if self._journal is not None:
                    self._journal.synchronize()
                self._look()
                self._end_at = self._units.settled_at() if self._units else 0.0
            self._look()
            if self._end_at is not None and self._settled(self._end_at):
                self._end_at = None
                self._look()
                for tail, kind in self._tails.items():
                    if tail.missing and kind is Kind.OUTPUT:
                        self._tell(Message.warning(f"--log {tail.path} was never read: {tail.missing}"))
                self._tell(Message(Kind.CAUGHT_UP))

    def _settled(self, end: float) -> bool:
        """Whether what the run has started by its end has had its time, no verdict is due, and all is read."""
        due = self._units.deadline() if self._units else None
        return due is None and time.monotonic() >= end and not self._behind

    @property
    def _behind(self) -> bool:
        return any(tail.behind for tail in self._tails) or (self._journal is not None and self._journal.behind)

    def _wait(self) -> set[int]:
        poll = select.poll()
        for fd in (self._channel.fileno(), self._inotify.fd):
            poll.register(fd, select.POLLIN)
        if self._journal is not None:
            poll.register(self._journal.fd, select.POLLIN)
        if self._units is not None:
            poll.register(self._units.fd, select.POLLIN)
        return {fd for fd, _ in poll.poll(self._patience())}

    def _patience(self) -> float | None:
        """Milliseconds."""
        if self._behind:
            return 0
        ends = [time.monotonic() + _LOOK] if self._tails or self._journal else []
        if self._units is not None:
            deadline = self._units.deadline()
            ends += [deadline] if deadline is not None else []
        ends += [self._end_at] if self._end_at is not None else []
        return max(0.0, (min(ends) - time.monotonic()) * 1000) + 1 if ends else None

    def _look(self) -> None:
        if self._units is not None:
            self._hear_units(self._units)
        if self._journal is not None:
            for name, data in self._journal.read():
                self._output(Kind.OUTPUT, name, data)
        if self._inotify.take():
            self._listen()
        for tail, kind in self._tails.items():
            for data in tail.read():
                self._output(kind, tail.path, data)

    def _hear_units(self, units: UnitWatch) -> None:
        try:
            units.hear()
            verdicts = units.verdicts()
        except SnapbreakerError as error:
            self._units = None
            verdicts = [f"units were not followed to the end: {error}"]
        for verdict in verdicts:
            self._tell(Message.of_issue(verdict) if isinstance(verdict, Issue) else Message.warning(verdict))

    def _listen(self) -> None:
        """Hear of the directories of the files, as far as they are there."""
        for directory in {os.path.dirname(tail.path) for tail in self._tails} - self._heard:
            with suppress(OSError):
                self._inotify.watch(directory)
                self._heard.add(directory)

    def _output(self, kind: Kind, name: str, data: bytes) -> None:
        half = LONGEST // 2
        for start in range(0, len(data), half):
            self._tell(Message(kind, name, data[start : start + half]))

    def _tell(self, message: Message) -> None:
        self._channel.sendall(message.packed())
