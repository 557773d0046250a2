"""The last lines over all sources, for the report: constant memory, and decoded only when asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import islice

from snapbreaker.dataclass import dataclass
from snapbreaker.issue import Issue
from snapbreaker.monitor.lines import Block, Line, decode

KEPT = 512 * 1024  # octets
ENTRIES = 4096


@dataclass(frozen=True, slots=True)
class _Entry:
    source: str
    block: Block
    time: float


class History:
    def __init__(self) -> None:
        self._entries: deque[_Entry] = deque()
        self._size = 0

    def add(self, source: str, block: Block, time: float) -> None:
        self._entries.append(_Entry(source, block, time))
        self._size += len(block.data)
        while (self._size > KEPT or len(self._entries) > ENTRIES) and len(self._entries) > 1:
            self._size -= len(self._entries.popleft().block.data)

    def last(self, count: int, until: Issue | None = None) -> list[Line]:
        """The last ``count`` lines, oldest first; with ``until``, those that end with the issue's line."""
        found: list[Line] = []
        for line in _merged(self._backwards()):
            if until is not None and _is_of(line, until):
                found, until = [replace(line, text=until.line)], None
            elif len(found) < count:
                found.append(line)
            if until is None and len(found) >= count:
                break
        return found[::-1] if count else []

    def after(self, issue: Issue, count: int) -> list[Line]:
        """At most ``count`` lines that were read after the issue's line, oldest first."""
        later: deque[Line] = deque(maxlen=count)
        for line in _merged(self._backwards()):
            if _is_of(line, issue):
                break
            later.appendleft(line)
        return list(islice(later, count))

    def has(self, text: str, sources: Collection[str]) -> bool:
        """Whether one of the sources has shown this line."""
        return any(line.text == text and line.source in sources for line in _merged(self._backwards()))

    def _backwards(self) -> Iterator[Line]:
        for entry in reversed(self._entries):
            data, number = entry.block.data, entry.block.first + entry.block.data.count(b"\n")
            end = len(data)
            while end >= 0:
                start = data.rfind(b"\n", 0, end)
                text = decode(data[start + 1 : end].rstrip(b"\r").rpartition(b"\r")[2])
                if text or 0 <= start < end < len(data):  # the block's first part may end a line shown before
                    yield Line(entry.source, number, text, entry.time)
                number -= 1
                end = start


def _merged(lines: Iterator[Line]) -> Iterator[Line]:
    """One line for each number: a progress line that came in several blocks shows its last state."""
    seen: dict[str, int] = {}
    for line in lines:
        if seen.get(line.source) != line.number:
            seen[line.source] = line.number
            yield line


def _is_of(line: Line, issue: Issue) -> bool:
    return line.number == issue.line_number and line.source == issue.source
