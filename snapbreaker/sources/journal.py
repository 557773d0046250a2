"""The journal as lines to be judged: one source for each unit, ``journal:UNIT``.

The priority of an entry stands at the head of its line as a level word, so that it is judged as any other line
is: a rule may allow it, and the recorded log is judged alike later.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from itertools import islice

from snapbreaker.dataclass import dataclass
from snapbreaker.linux.journal import Journal, synchronize

LEVELS = {**dict.fromkeys((b"0", b"1", b"2"), b"[critical] "), b"3": b"[error] ", b"4": b"[warning] "}
_FIELDS = (b"MESSAGE", b"PRIORITY", b"_SYSTEMD_UNIT", b"UNIT", b"_PID", b"MESSAGE_ID", b"SYSLOG_IDENTIFIER")
# What PID 1 says of a process' or a unit's end (sd-messages.h): who follows the units knows better whether that is
# a failure or was asked for.
_ENDS = {
    b"be02cf6855d2428ba40df7e9d022f03d",  # unit failed to start
    b"d9b373ed55a64feb8242e02dbe79a49c",  # unit failed with a result
    b"98e322203f7a4ed290d09fe03c09fe15",  # process of a unit exited
}
_KINDS = (  # systemd.unit(5)
    *(".service", ".socket", ".timer", ".path", ".mount", ".automount", ".swap", ".target", ".slice", ".scope"),
    ".device",
)
_HELD = 1.0  # s that entries wait for their unit to be touched: PID 1 may tell of a start after its first line
AT_ONCE = 500  # entries read in one go
_MOST = 2 * AT_ONCE  # of one unit that wait
_LAST, _LENGTH = 6, 200  # entries of a unit that an issue shows, and characters of each


@dataclass(frozen=True, slots=True)
class _Entry:
    at: float
    unit: str
    text: bytes


class JournalSource:
    """What units log from now on: ``named`` ones, or with none those for which ``touched`` says yes.

    ``behind``: there is more to read at once. Raises OSError where the journal cannot be read.
    """

    def __init__(self, named: Collection[str], touched: Callable[[str], bool]) -> None:
        self._wanted = frozenset(map(unit_name, named)).__contains__ if named else touched
        self._held: dict[str, deque[_Entry]] = {}
        self.behind = False
        self._journal = Journal()
        self._journal.to_end()
        self.fd = self._journal.fd()

    def synchronize(self) -> None:
        """What was logged up to now can be read then."""
        synchronize(2.0)

    def read(self) -> Iterator[tuple[str, bytes]]:
        """New lines, those of AT_ONCE entries at most: source and text."""
        now, count = time.monotonic(), 0
        for fields in islice(self._journal.read(_FIELDS), AT_ONCE):
            count += 1
            if entry := _entry(fields, now):
                self._held.setdefault(entry.unit, deque(maxlen=_MOST)).append(entry)
        self.behind = count == AT_ONCE
        for unit, entries in list(self._held.items()):
            if wanted := self._wanted(unit):
                yield from ((f"journal:{unit}", entry.text) for entry in entries)
            while entries and (wanted or now - entries[0].at >= _HELD):
                entries.popleft()
            if not entries:
                del self._held[unit]


def _entry(fields: dict[bytes, bytes], now: float) -> _Entry | None:
    manager = fields.get(b"_PID") == b"1"
    unit = fields.get(b"UNIT", b"") if manager else fields.get(b"_SYSTEMD_UNIT", b"")
    message = fields.get(b"MESSAGE", b"").strip(b"\n")
    if not (unit and message) or (manager and fields.get(b"MESSAGE_ID") in _ENDS):
        return None
    level = LEVELS.get(fields.get(b"PRIORITY", b""), b"")
    return _Entry(now, unit.decode("utf-8", "replace"), level + message + b"\n")


def unit_name(text: str) -> str:
    """As systemctl(1) completes it: ``nginx`` is nginx.service, and so is ``app-1.2`` app-1.2.service."""
    return text if text.endswith(_KINDS) else f"{text}.service"


def last_lines(unit: str) -> list[str]:
    """How the journal of a unit ends; empty where that cannot be read."""
    with suppress(OSError):
        journal = Journal(f"_SYSTEMD_UNIT={unit}")
        try:
            journal.to_last(_LAST)
            found = [fields.get(b"MESSAGE", b"") for fields in journal.read((b"MESSAGE",))]
            return [line.decode("utf-8", "replace")[:_LENGTH] for line in found[-_LAST:]]
        finally:
            journal.close()
    return []
