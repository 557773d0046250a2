"""From bytes to the lines that are judged: what a person would have read on a terminal.

A source's bytes are cut into *segments*: the text between line feeds, and between the carriage returns and cursor
movements within one line. Each is judged, since the next one overwrites it on the screen and a progress line may
hide a warning. Only line feeds count as lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from snapbreaker.dataclass import dataclass

BLOCK = 64 * 1024  # octets looked at in one go; a partial line longer than this is judged in pieces
PIECE = 8 * 1024  # octets of one judged text: bounds what a slow pattern can cost
OVERLAP = 1024  # octets that neighbouring pieces share, so that no message is cut in two

# ECMA-48. Movements of the cursor begin a new segment; colours, titles and modes are dropped.
_MOVE = re.compile(rb"\x1b(?:\[[0-9;]*[ABDEFGHJdfsu]|[78])")
_FORWARD = re.compile(rb"\x1b\[[0-9]*C")
_ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\r\n]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
_CONTROL = b"\x00\x07\x0e\x0f\x1b\x7f"
_NOT_TEXT = _CONTROL + b"\b"
_CR = 0x0D
_LONE_CR = re.compile(rb"\r[^\n]")
_SAMPLE, _DENSE = 2048, 64  # octets that are counted in any case, and line feeds in them from which all are
_SEGMENT = re.compile(rb"[^\r\n]+")  # a pattern with the backspace in it would be quadratic on lines without


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a source. ``number`` counts from 1; ``time`` is seconds since the epoch, when it was read."""

    source: str
    number: int
    text: str
    time: float


@dataclass(frozen=True, slots=True)
class Block:
    """Whole segments without control sequences; ``first`` is the line number of its first octet."""

    first: int
    data: bytes


def printed(data: bytes) -> bytes:
    """``data`` without terminal control: CR LF is LF, moves of the cursor are CR, backspaces are carried out."""
    if _CR in data:  # one octet is looked for fifty times as fast as two
        lone = data[-1] == _CR or _LONE_CR.search(data)
        data = data.replace(b"\r\n", b"\n") if lone else data.replace(b"\r", b"")  # which is far faster
    if not any(octet in data for octet in _NOT_TEXT):
        return data
    if b"\x1b" in data:
        data = _ESCAPE.sub(b"", _FORWARD.sub(b" ", _MOVE.sub(b"\r", data)))
    data = data.translate(None, _CONTROL)
    if b"\x08" in data:
        data = _SEGMENT.sub(_rub_out, data)
    return data


def _rub_out(match: re.Match[bytes]) -> bytes:
    first, *rest = match.group().split(b"\x08")
    if not rest:
        return first
    kept = bytearray(first)
    for part in rest:
        del kept[-1:]
        kept += part
    return bytes(kept)


def line_feeds(data: bytes, start: int, end: int) -> int:
    """How many there are in a part. Where lines are not short, to remove them is faster than to count."""
    if end - start <= _SAMPLE or data.count(b"\n", start, start + _SAMPLE) > _DENSE:
        return data.count(b"\n", start, end)
    part = data[start:end]
    return len(part) - len(part.replace(b"\n", b""))


def decode(data: bytes) -> str:
    return data.decode("utf-8", "replace").rstrip()


def segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each non-empty segment of printed data."""
    start = 0
    for part in data.replace(b"\r", b"\n").split(b"\n"):
        if part:
            yield start, start + len(part)
        start += len(part) + 1


def pieces(segment: bytes) -> Iterator[bytes]:
    """``segment`` in overlapping parts of at most PIECE octets, cut between words where there are any."""
    start = 0
    while len(segment) - start > PIECE:
        end = _word_boundary(segment, start + PIECE - OVERLAP, start + PIECE)
        yield segment[start:end]
        start = _word_boundary(segment, end - OVERLAP, end - OVERLAP // 2)
    yield segment[start:]


def _word_boundary(segment: bytes, low: int, high: int) -> int:
    space = segment.rfind(b" ", low, high)
    return high if space < 0 else space + 1


class LineReader:
    """Cuts one source's stream into blocks of whole segments and keeps the unfinished rest."""

    def __init__(self) -> None:
        self.number = 1  # of the line that is being read
        self._pending = b""

    def feed(self, data: bytes) -> Block | None:
        """Take at most BLOCK octets; returns what they completed, if anything."""
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if not end:
            self._pending += data
            return self._overlong() if len(self._pending) > BLOCK else None
        whole, self._pending = self._pending + data[:end], data[end:]
        return self._block(printed(whole))

    @property
    def has_partial(self) -> bool:
        return bool(self._pending)

    def partial(self) -> str:
        """The unfinished line as it looks now."""
        return decode(printed(self._pending).rpartition(b"\r")[2])

    def partial_data(self) -> bytes:
        return printed(self._pending)

    def close(self) -> Block | None:
        """The rest, when the stream has ended without a line feed."""
        rest, self._pending = self._pending, b""
        return self._block(printed(rest)) if rest else None

    def _block(self, data: bytes) -> Block:
        block = Block(self.number, data)
        self.number += line_feeds(data, 0, len(data))
        return block

    def _overlong(self) -> Block:
        end = _word_boundary(self._pending, len(self._pending) - OVERLAP, len(self._pending))
        rest = _word_boundary(self._pending, end - OVERLAP, end - OVERLAP // 2)
        whole, self._pending = self._pending[:end], self._pending[rest:]
        return self._block(printed(whole) + b"\r")
