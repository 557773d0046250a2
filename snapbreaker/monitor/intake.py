"""The command's own output on its way in: judged first, passed on then."""

from __future__ import annotations

import time
from collections.abc import Sequence

from snapbreaker.monitor.judge import Judge
from snapbreaker.monitor.relays import Relays
from snapbreaker.monitor.status import StatusLine
from snapbreaker.monitor.streams import Source
from snapbreaker.monitor.timers import Clocks
from snapbreaker.monitor.trip import Trip
from snapbreaker.monitor.watched import OutputSink

_DRAIN = 1 << 20  # octets taken at most from a source that is being emptied
_TURN = 1 << 18  # and in one turn of the loop


class Intake:
    """``last`` is when there was output last (monotonic)."""

    def __init__(
        self,
        sources: Sequence[Source],
        judge: Judge,
        trip: Trip,
        relays: Relays,
        sinks: Sequence[OutputSink],
        clocks: Clocks,
        status: StatusLine,
    ) -> None:
        self.sources = sources
        self._judge, self._trip, self._relays, self._sinks, self._clocks = judge, trip, relays, sinks, clocks
        self._status = status
        self.last = 0.0

    @property
    def ended(self) -> bool:
        return all(source.ended for source in self.sources)

    @property
    def held_back(self) -> bool:
        """Whether the command waits for a reader of ours."""
        return any(self._relays.holds_back(source.name) for source in self.sources)

    def take(self, source: Source) -> None:
        """What is there now, up to _TURN octets: a flood does not ask for the time after every piece."""
        end = source.octets + _TURN
        while self.read(source) and source.filled and source.octets < end and not self._trip.open:
            if self._relays.holds_back(source.name):
                break

    def read(self, source: Source) -> bool:
        """A piece of what is there now; whether there was anything."""
        data = source.read()
        read_at = time.monotonic()
        if data:
            self.last = read_at
            self._clocks.touch()
            self._trip.found(self._judge.feed(source.name, data), read_at)
            self._status.output(data)
            self._relays.output(source.name, data)
            for sink in self._sinks:
                sink.output(source.name, data)
        elif source.ended:
            self._trip.found(self._judge.close(source.name), read_at)
        return bool(data)

    def drain(self) -> None:
        """Take what is in the pipes now."""
        for source in self.sources:
            end = source.octets + _DRAIN
            while not source.ended and source.octets < end and self.read(source):
                pass

    def end(self) -> None:
        """Nothing more is read: judge what has no line feed."""
        for source in self.sources:
            if not source.ended:
                self._trip.found(self._judge.close(source.name))
