"""Finds the few segments of a block that any rule could match, before a regular expression is tried.

Two questions are asked of each block, both answered at the speed of C: which of any number of *phrases* it holds
(one translate, one split and one set intersection find their key words: about 100 MB/s, whatever their number),
and which of a few *literals* occur anywhere in it, also inside a longer word (``in``: about 1.6 GB/s divided by
their number; a digit in one stands for any digit). Where google-re2 is installed it answers both in one pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from snapbreaker.monitor.scanner import scanner

WINDOW = 8 * 1024  # octets searched at a time: a needle that occurs is looked for only near where it occurs

# Letters and digits of ASCII, lower-cased; everything else separates words.
_WORDS = bytes(ord(chr(c).lower()) if c < 128 and chr(c).isalnum() else 0x20 for c in range(256))

# What literals are looked for in: lower case, and 0 for each digit.
_PLAIN = bytes(0x30 if 0x30 <= c <= 0x39 else ord(chr(c).lower()) if c < 128 else c for c in range(256))


def words_of(phrase: str) -> bytes:
    """``phrase`` as it is looked for: lower case, a space for each other character; empty if it has no word."""
    words = phrase.encode().translate(_WORDS).strip()
    return b" %b " % words if words else b""


# One octet is looked for ten times as fast as two: the rarest of a literal, in what programs print, comes first.
_RARE = b"%*\\^~`|$&;@#!?<>{}+[]()='\":,/qzxjkvwybfgp-_hmducl.rsnoiate0123456789 "


def _rarest(literal: bytes) -> int:
    return min(literal, key=lambda octet: _RARE.find(octet) % 256)


class Prefilter:
    """Needles: ``phrases`` as ``words_of`` makes them, and lower-case ``literals``."""

    def __init__(self, phrases: Iterable[bytes], literals: Iterable[bytes]) -> None:
        phrases, literals = set(phrases), set(literals)
        self._scanner = scanner(phrases, literals)
        by_key: dict[bytes, set[bytes]] = {}
        for phrase in phrases:
            by_key.setdefault(max(phrase.split(), key=len), set()).add(phrase)
        self._by_key = {key: tuple(sorted(found)) for key, found in by_key.items()}
        self._keys = frozenset(by_key)
        by_plain: dict[bytes, set[bytes]] = {}
        for literal in literals:
            by_plain.setdefault(literal.translate(_PLAIN), set()).add(literal)
        self._literals = tuple((_rarest(plain), plain, by_plain[plain]) for plain in sorted(by_plain))

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Start and end of each segment of printed data that holds a needle, in order."""
        if self._scanner:
            return self._scanner.spans(data)
        found: list[tuple[int, int]] = []
        start = 0
        while start < len(data):
            end = data.find(b"\n", start + WINDOW) + 1 or len(data)
            found += self._window_spans(data[start:end], start)
            start = end
        return found

    def _window_spans(self, data: bytes, offset: int) -> Iterator[tuple[int, int]]:
        low = data.translate(_PLAIN)
        padded = b" " + data.translate(_WORDS) + b" "
        needles = [(low, plain) for rare, plain, _ in self._literals if rare in low and plain in low]
        needles += [(padded, phrase) for phrase in self._phrases(padded)]
        if not needles:
            return
        ends = low.replace(b"\r", b"\n")
        spans: dict[int, int] = {}
        for text, needle in needles:
            at = text.find(needle)
            while at >= 0:  # a match in the padded text lies where the phrase lies in the data
                end = ends.find(b"\n", at)
                end = len(ends) if end < 0 else end
                spans[ends.rfind(b"\n", 0, at) + 1] = end
                at = text.find(needle, end)
        yield from ((offset + start, offset + spans[start]) for start in sorted(spans))

    def needles(self, segment: bytes) -> set[bytes]:
        """The phrases and literals that one segment holds."""
        low = segment.translate(_PLAIN)
        found = set().union(
            *(literals for rare, plain, literals in self._literals if rare in low and plain in low)
        )
        padded = b" " + segment.translate(_WORDS) + b" "
        found.update(phrase for phrase in self._phrases(padded) if phrase in padded)
        return found

    def _phrases(self, padded: bytes) -> Iterator[bytes]:
        """The phrases whose key word is there."""
        for key in self._keys.intersection(padded.split()):
            yield from self._by_key[key]
