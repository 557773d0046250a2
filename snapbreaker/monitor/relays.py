"""Where output is passed on to, our own standard output and error, and what becomes of it when nobody reads."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Iterator, Mapping

from snapbreaker.monitor.lines import decode
from snapbreaker.monitor.streams import Relay, standard_relays
from snapbreaker.report.wording import line_text

_LONGEST = 64 * 1024  # octets of an unfinished line of another source that is kept to be shown whole


class Relays:
    """``given``: by source; None: our own standard output and error, closed by ``close``.

    ``stall``: seconds that the command waits for one of them that takes nothing; from then on what it prints is
    only recorded.
    """

    def __init__(self, given: Mapping[str, Relay] | None, stall: float) -> None:
        self._own = given is None
        self._by_source = dict(standard_relays() if given is None else given)
        self._all = list(dict.fromkeys(self._by_source.values()))
        self._stall = stall
        self._partial: dict[str, bytes] = {}
        self._lost: set[Relay] = set()

    def close(self) -> None:
        if self._own:
            for relay in self._all:
                relay.close()

    def wanted(self) -> Iterator[tuple[int, int]]:
        """Descriptors and events to poll for; that a reader has gone is told unasked (poll(2), POLLERR)."""
        return ((relay.fd, select.POLLOUT if relay.pending else 0) for relay in self._all if not relay.gone)

    def on_ready(self, ready: Mapping[int, int]) -> list[int]:
        """Write what can be written; for each reader that is found to be gone, the signal that means that."""
        for relay in self._all:
            if ready.get(relay.fd, 0) & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                relay.hang_up()
            relay.flush()
        lost = {relay for relay in self._all if relay.lost} - self._lost
        self._lost |= lost
        return [relay.lost for relay in lost]

    def output(self, source: str, data: bytes) -> None:
        """What the command printed, as it is."""
        if relay := self._by_source.get(source):
            relay.output(source, data)

    def tell(self, source: str, data: bytes) -> None:
        """What was written elsewhere: whole lines, each with the name of its source."""
        relay = self._by_source.get("stderr")
        if relay is None:
            return
        whole, feed, rest = (self._partial.pop(source, b"") + data).rpartition(b"\n")
        if rest:
            self._partial[source] = rest[-_LONGEST:]
        lines = [b"[%s] %s\r\n" % (_text(source), _text(decode(line))) for line in whole.split(b"\n") if feed]
        relay.tell(source, data, b"".join(lines))

    def screen(self) -> Relay | None:
        """The terminal that all of the command's output goes to; None where there is no such one."""
        alone = self._own and len(self._all) == 1 and os.isatty(self._all[0].fd)
        return self._all[0] if alone else None

    def holds_back(self, source: str) -> bool:
        """Whether the command has to wait with more of it."""
        relay = self._by_source.get(source)
        return relay is not None and relay.full

    @property
    def pending(self) -> bool:
        return any(relay.pending for relay in self._all)

    def deadline(self, ended: bool) -> float | None:
        """Monotonic time at which somebody has been waited for long enough."""
        return min((relay.moved_at + self._stall for relay in self._waited_for(ended)), default=None)

    def detach_stalled(self, ended: bool) -> bool:
        """Wait no longer for those who have taken nothing for that long; whether there was one. ``ended``: so is
        the command's own process, and what waits in a relay is all that is left.
        """
        now = time.monotonic()
        stalled = [relay for relay in self._waited_for(ended) if now - relay.moved_at >= self._stall]
        for relay in stalled:
            relay.detach()
        return bool(stalled)

    def finish(self, patience: float) -> None:
        for relay in self._all:
            relay.finish(patience)

    def dropped(self) -> dict[str, int]:
        """Octets that nobody took, by source."""
        return {name: relay.dropped for name, relay in self._by_source.items() if relay.dropped}

    def _waited_for(self, ended: bool) -> Iterable[Relay]:
        return (relay for relay in self._all if relay.full or (ended and relay.pending))


def _text(text: str) -> bytes:
    return line_text(text).encode("utf-8", "backslashreplace")
