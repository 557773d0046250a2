"""Finds the few segments of a block that any rule could match, before a regular expression is tried.

Two questions are asked of each block, both answered at the speed of C: which of any number of *words* it holds
(one translate, one split, one set intersection: about 100 MB/s, whatever the number of words), and which of a few
*literals* occur anywhere in it, also inside a longer word (``in``: about 1.6 GB/s divided by their number).
"""

from __future__ import annotations

from collections.abc import Iterable

# Letters and digits of ASCII, lower-cased; everything else separates words.
_WORDS = bytes(ord(chr(c).lower()) if c < 128 and chr(c).isalnum() else 0x20 for c in range(256))


def longest_word(phrase: str) -> bytes:
    """The word of ``phrase`` that is looked for in its place; empty if it has none."""
    return max(phrase.encode().translate(_WORDS).split(), key=len, default=b"")


class Prefilter:
    """Needles of ``words`` and ``literals``, all lower case."""

    def __init__(self, words: Iterable[bytes], literals: Iterable[bytes]) -> None:
        self._words = frozenset(words)
        wanted = set(literals)
        self._literals = tuple(sorted(a for a in wanted if not any(b != a and b in a for b in wanted)))
        self._all_literals = tuple(sorted(wanted))

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Start and end of each segment of printed data that holds a needle, in order."""
        low = data.lower()
        padded = b" " + data.translate(_WORDS) + b" "
        needles = [(low, literal) for literal in self._literals if literal in low]
        needles += [(padded, b" " + word + b" ") for word in self._words.intersection(padded.split())]
        if not needles:
            return []
        ends = low.replace(b"\r", b"\n")
        spans: dict[int, int] = {}
        for text, needle in needles:
            at = text.find(needle)
            while at >= 0:  # a match in the padded text lies where the word lies in the data
                end = ends.find(b"\n", at)
                end = len(ends) if end < 0 else end
                spans[ends.rfind(b"\n", 0, at) + 1] = end
                at = text.find(needle, end)
        return sorted(spans.items())

    def needles(self, segment: bytes) -> set[bytes]:
        """The words and literals that one segment holds."""
        low = segment.lower()
        found = {literal for literal in self._all_literals if literal in low}
        return found | self._words.intersection(segment.translate(_WORDS).split())
