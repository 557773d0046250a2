"""Finds the few segments of a block that any rule could match, before a regular expression is tried.

Two questions are asked of each block, both answered at the speed of C: which of any number of *phrases* it holds
(one translate, one split and one set intersection find their key words: about 100 MB/s, whatever their number),
and which of a few *literals* occur anywhere in it, also inside a longer word (``in``: about 1.6 GB/s divided by
their number; a digit in one stands for any digit). Where google-re2 is installed it answers both in one pass.

A flood repeats itself but for its numbers, so the lines that were found innocent are remembered, with a 0 for each
digit, and not asked about again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import cache, cached_property
from itertools import filterfalse

from snapbreaker.monitor.scanner import scanner

WINDOW = 8 * 1024  # octets searched at a time: a needle that occurs is looked for only near where it occurs
_MOST, _LONGEST = 8192, 256  # innocent lines that are remembered, and octets of one
_REST = 7  # windows that are not compared with them after one of which less than half was known

# Letters and digits of ASCII, lower-cased; everything else separates words.
_WORDS = bytes(ord(chr(c).lower()) if c < 128 and chr(c).isalnum() else 0x20 for c in range(256))

# What lines are compared by and literals looked for in: lower case, 0 for each digit, a line feed at the end of
# each segment.
_PLAIN = bytes(
    0x30 if 0x30 <= c <= 0x39 else 0x0A if c == 0x0D else ord(chr(c).lower()) if c < 128 else c for c in range(256)
)


def words_of(phrase: str) -> bytes:
    """``phrase`` as it is looked for: lower case, a space for each other character; empty if it has no word."""
    words = phrase.encode().translate(_WORDS).strip()
    return b" %b " % words if words else b""


# One octet is looked for ten times as fast as two: the rarest of a literal, in what programs print, comes first.
_RARE = b"%*\\^~`|$&;@#!?<>{}+[]()='\":,/qzxjkvwybfgp-_hmducl.rsnoiate0123456789 "


@cache
def _rarest(literal: bytes) -> int:
    return min(literal, key=lambda octet: _RARE.find(octet) % 256)


class Prefilter:
    """Needles: ``phrases`` as ``words_of`` makes them, and lower-case ``literals``. Memory is bounded."""

    def __init__(self, phrases: Iterable[bytes], literals: Iterable[bytes]) -> None:
        phrases, literals = set(phrases), set(literals)
        self._scanner = scanner(phrases, literals)
        self._exact = _Phrases(phrases)
        by_plain: dict[bytes, set[bytes]] = {}
        for literal in literals:
            by_plain.setdefault(literal.translate(_PLAIN), set()).add(literal)
        self._literals: dict[int, list[tuple[bytes, set[bytes]]]] = {}  # by the rarest octet
        for plain, group in by_plain.items():
            self._literals.setdefault(_rarest(plain), []).append((plain, group))
        self._innocent = set[bytes]()
        self._rest = 0

    @cached_property
    def _plain(self) -> _Phrases:
        """For lines as ``_PLAIN`` makes them."""
        return _Phrases({phrase.translate(_PLAIN) for phrase in self._exact.all})

    def prepare(self) -> None:
        """Do what the first ``spans`` would wait for."""
        self.spans(next(iter(self._exact.all), b" "))

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Start and end of each segment of printed data that holds a needle, in order."""
        if self._scanner:
            return self._scanner.spans(data)
        found: list[tuple[int, int]] = []
        start = 0
        while start < len(data):
            end = data.find(b"\n", start + WINDOW) + 1 or len(data)
            found += ((start + a, start + b) for a, b in self._window(data[start:end]))
            start = end
        return found

    def needles(self, segment: bytes) -> set[bytes]:
        """The phrases and literals that one segment holds."""
        low = segment.translate(_PLAIN)
        return set(self._exact.of(_padded(segment))).union(*(literals for _, literals in self._literals_of(low)))

    def _window(self, data: bytes) -> Iterable[tuple[int, int]]:
        if self._rest:
            self._rest -= 1
            return self._segments(data, self._exact)
        lines = data.translate(_PLAIN).split(b"\n")
        unknown = list(filterfalse(self._innocent.__contains__, lines))
        if not unknown:
            return ()
        if len(unknown) * 2 > len(lines):
            self._rest = _REST
        suspects = self._held(unknown, self._plain)
        if len(self._innocent) + len(unknown) > _MOST:
            self._innocent.clear()
        self._innocent.update(line for line in unknown if len(line) <= _LONGEST and line not in suspects)
        if not suspects:
            return ()
        places = [(start, end) for line, start, end in _placed(lines) if line in suspects]
        held = self._held([data[start:end] for start, end in places], self._exact)
        return [(start, end) for start, end in places if data[start:end] in held]

    def _held(self, lines: Iterable[bytes], phrases: _Phrases) -> set[bytes]:
        """Those of the lines that hold a needle."""
        text = b"\n".join(lines)
        return {text[start:end] for start, end in self._segments(text, phrases)}

    def _segments(self, data: bytes, phrases: _Phrases) -> list[tuple[int, int]]:
        low, padded = data.translate(_PLAIN), _padded(data)
        needles = [(low, plain) for plain, _ in self._literals_of(low)]
        needles += ((padded, phrase) for phrase in phrases.of(padded))
        spans: dict[int, int] = {}
        for text, needle in needles:
            at = text.find(needle)
            while at >= 0:  # a match in the padded text lies where the phrase lies in the data
                end = low.find(b"\n", at)
                end = len(low) if end < 0 else end
                spans[low.rfind(b"\n", 0, at) + 1] = end
                at = text.find(needle, end)
        return sorted(spans.items())

    def _literals_of(self, low: bytes) -> Iterator[tuple[bytes, set[bytes]]]:
        for rare, group in self._literals.items():
            if rare in low:
                yield from (one for one in group if one[0] in low)


class _Phrases:
    """Phrases by their key words."""

    def __init__(self, phrases: Collection[bytes]) -> None:
        self.all = phrases
        self._by_key: dict[bytes, list[bytes]] = {}
        for phrase in phrases:
            self._by_key.setdefault(_key(phrase), []).append(phrase)
        self._keys = frozenset(self._by_key)

    def of(self, padded: bytes) -> Iterator[bytes]:
        """Those that a text holds."""
        for key in self._keys.intersection(padded.split()):
            yield from (phrase for phrase in self._by_key[key] if phrase in padded)


@cache
def _key(phrase: bytes) -> bytes:
    return max(phrase.split(), key=len)


def _padded(text: bytes) -> bytes:
    return b" %b " % text.translate(_WORDS)


def _placed(lines: Iterable[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """The lines of a text, where they begin and where they end."""
    start = 0
    for line in lines:
        yield line, start, start + len(line)
        start += len(line) + 1
