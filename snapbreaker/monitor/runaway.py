"""Whether matching a pattern could take long on a hostile line, and up to which length of text it may be tried.

Python's ``re`` backtracks and cannot be given a time limit, so it is the pattern that is judged, when it is read:

1. A repeat whose body can match one text in several ways (``(a+)+``, ``(\\w|\\d)*``) takes time that doubles with
   each character: refused.
2. Repeats that can take characters from one another (``.*a.*b``) multiply. What that costs on a line of 64 KiB is
   estimated, generously, and a long line is searched in parts, so short that it stays within ``BUDGET``, but not
   shorter than ``SHORTEST``; what would take more than ``LIMIT`` there is refused.

The estimate is of steps, some 10 ns each; tests/unit/test_runaway.py holds it against a clock.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from snapbreaker.dataclass import dataclass
from snapbreaker.monitor.pattern_tree import (
    REPEATS,
    children,
    elastic,
    first,
    flat,
    node_chars,
    parsed,
    width,
)

LONGEST = 8 * 1024  # characters of one judged text, as snapbreaker.monitor.lines.PIECE
SHORTEST = 64
LINE = 64 * 1024
OVERLAP = 4  # neighbouring windows share this part of their length: a quarter
BUDGET = 6_000_000  # steps, within which the text is made shorter
LIMIT = 100_000_000  # steps, as estimated at SHORTEST; beyond that a pattern is refused
_LOOP = 3  # a repeat that may go on so often multiplies what is ambiguous in its body
_TURN = 4  # steps of one turn of a repeat whose body is more than one class; a run of a class is passed over
_MANY = 32  # places from which on their order counts
_TOO_LONG = 10_000  # characters of a pattern


def runaway(pattern: str, flags: int = 0, *, anchored: bool = False) -> str | None:
    """Why matching could take too long, or None. Raises what ``re.compile`` does.

    ``anchored`` says that the pattern is matched against the whole line, not searched in it.
    """
    if len(pattern) > _TOO_LONG:
        return f"longer than {_TOO_LONG:,} characters"
    if ambiguous(pattern, flags):
        return "a repeat in a repeat that can match one text in several ways, like (a+)+, can take forever"
    if reach(pattern, flags, anchored=anchored) is None:
        remedy = "" if anchored else "; begin it with ^, or leave some out"
        return f"its repeats can share one text in too many ways, like .*a.*b.*c.*d{remedy}"
    return None


def ambiguous(pattern: str, flags: int = 0) -> bool:
    """Whether a repeat's body can match one text in several ways."""
    tree = parsed(pattern, flags)
    ignore_case = bool(tree.state.flags & re.IGNORECASE)
    return any(_is_ambiguous(flat(body), first(flat(body), ignore_case), ignore_case) for body in _loops(tree))


@dataclass(frozen=True, slots=True)
class Reach:
    """Characters. A text of at most ``whole`` is tried at once.

    A longer one is searched in parts of ``part``, each of which shares a quarter with its neighbour; where all of
    it would have to match, it does not match.
    """

    whole: int = LONGEST
    part: int = LONGEST

    def parts(self, length: int) -> Iterator[tuple[int, int]]:
        """Where the parts of a text of ``length`` begin and end."""
        if length <= self.whole:
            yield 0, length
            return
        step = self.part - self.part // OVERLAP
        for start in range(0, max(1, length - self.part // OVERLAP), step):
            yield start, min(length, start + self.part)


@cache
def reach(pattern: str, flags: int = 0, *, anchored: bool = False) -> Reach | None:
    """On how much text the pattern may be tried; None: it is too slow on any."""
    tree = parsed(pattern, flags)
    items, ignore_case = flat(tree), bool(tree.state.flags & re.IGNORECASE)
    shared = _Shared(ignore_case)
    sizes = [size for size in (LONGEST >> n for n in range(8)) if size >= SHORTEST]

    @cache
    def steps(size: int) -> float:
        return _Steps(size, shared).of(items, anchored)

    if steps(SHORTEST) * (1 if anchored else _parts(SHORTEST)) > LIMIT:
        return None
    whole = next(
        (size for size in sizes if steps(size) * (LINE / size if size == LONGEST else 2) <= BUDGET), SHORTEST
    )
    if whole == LONGEST or anchored:
        return Reach(whole, whole)
    return Reach(whole, next((size for size in sizes if steps(size) * _parts(size) <= BUDGET), SHORTEST))


def _parts(size: int) -> float:
    return LINE / (size - size // OVERLAP)


def _loops(tree: Any) -> list[Any]:
    """The bodies of all repeats."""
    found = []
    for op, argument in tree:
        if str(op) in REPEATS and int(argument[1]) >= _LOOP:
            found.append(argument[2])
        for child in children(str(op), argument):
            found += _loops(child)
    return found


def _is_ambiguous(items: list[tuple[str, Any]], follow: frozenset[str], ignore_case: bool) -> bool:
    """Whether ``items``, followed by a text that begins with one of ``follow``, match some text in two ways."""
    for place, (op, argument) in enumerate(items):
        rest = items[place + 1 :]
        after = first(rest, ignore_case, follow)
        if op == "BRANCH":
            branches = [flat(branch) for branch in argument[1]]
            if next(_collisions(branches, after, ignore_case), None):
                return True
            if any(_is_ambiguous(branch, after, ignore_case) for branch in branches):
                return True
        elif op in REPEATS:
            body = flat(argument[2])
            again = first(body, ignore_case)
            if argument[0] != argument[1] and again & after and not _fenced((op, argument), rest, ignore_case):
                return True
            if _is_ambiguous(body, again | after, ignore_case):
                return True
    return False


def _fenced(item: tuple[str, Any], rest: list[tuple[str, Any]], ignore_case: bool) -> bool:
    """Whether something that ``item`` cannot match follows it at a fixed distance, so that its end is certain."""
    own = node_chars(*item, ignore_case)
    for op, argument in rest:
        if elastic(op, argument):
            return False
        if width(op, argument)[0] and node_chars(op, argument, ignore_case).isdisjoint(own):
            return True
    return False


def _collide(
    one: list[tuple[str, Any]], other: list[tuple[str, Any]], after: frozenset[str], ignore_case: bool
) -> bool:
    """Whether two alternatives may begin with the same text, one of them to its end."""
    for a, b in zip(one, other, strict=False):
        if width(*a) != (1, 1) or width(*b) != (1, 1):
            break
        if node_chars(*a, ignore_case).isdisjoint(node_chars(*b, ignore_case)):
            return False
        one, other = one[1:], other[1:]
    return bool(first(one, ignore_case, after) & first(other, ignore_case, after)) or not (one and other)


def _collisions(
    branches: list[list[tuple[str, Any]]], after: frozenset[str], ignore_case: bool
) -> Iterator[tuple[int, int]]:
    """The pairs of alternatives that collide. Those that begin with no common character are not compared."""
    by_first: dict[str, list[int]] = {}  # "": of those that are empty
    for number, branch in enumerate(branches):
        begins = first(branch, ignore_case, after)
        near = {rival for char in (*begins, "") for rival in by_first.get(char, ())}
        for rival in sorted(near) if branch else range(number):
            if _collide(branches[rival], branch, after, ignore_case):
                yield rival, number
        for char in begins if branch else ("",):
            by_first.setdefault(char, []).append(number)


class _Shared:
    """How many alternatives of a branch may begin with the same text; counted once."""

    def __init__(self, ignore_case: bool) -> None:
        self.ignore_case = ignore_case
        self._counts: dict[int, int] = {}

    def of(self, branches: list[Any]) -> int:
        if id(branches) not in self._counts:  # the tree holds them, so the number stays theirs
            opened, none = [flat(branch) for branch in branches], frozenset[str]()
            counts = [int(_collide(one, one, none, self.ignore_case)) for one in opened]
            for a, b in _collisions(opened, none, self.ignore_case):
                counts[a] += 1
                counts[b] += 1
            self._counts[id(branches)] = max(1, *counts)
        return self._counts[id(branches)]


class _Steps:
    """About how many steps a hostile text of ``size`` characters takes at most."""

    def __init__(self, size: int, shared: _Shared) -> None:
        self._size, self._shared = size, shared
        self._ignore_case = shared.ignore_case
        self._alone: dict[int, float] = {}

    def _of_tree(self, tree: Any) -> float:
        """Of a part of the pattern by itself. Each is part of others, so it is counted once."""
        if id(tree) not in self._alone:
            self._alone[id(tree)] = self.of(flat(tree), True)
        return self._alone[id(tree)]

    def of(self, items: list[tuple[str, Any]], anchored: bool) -> float:
        size = self._size
        factors: list[float] = []  # each a place in the text that may be chosen
        inner = 1.0
        if not anchored:
            items = _without_tail(items)
            if not (items and items[0][0] == "AT" and "BEGINNING" in str(items[0][1])):
                factors.append(size / max(1, _letters(items)))
        scans = 1.0  # characters that are passed over after the last choice
        while items:
            (op, argument), items = items[0], items[1:]
            if op == "BRANCH":
                factors.append(self._shared.of(argument[1]))
                items = flat(max(argument[1], key=self._of_tree)) + items
                continue
            if op in REPEATS and int(argument[1]) < _LOOP:  # as good as written out
                if self._shares((op, argument), items):
                    factors.append(int(argument[1]) - int(argument[0]) + 1)
                items = flat(argument[2]) * int(argument[1]) + items
                continue
            for child in children(op, argument):
                inner = max([inner, *(3 * self._of_tree(each) for each in _asserted(child))])
            if op in ("ASSERT", "ASSERT_NOT"):
                inner = max(inner, self._of_tree(argument[1]))
            elif op == "GROUPREF":
                scans = size
            elif elastic(op, argument):
                endless = width(op, argument)[1] >= size
                most = size if endless else int(argument[1]) - int(argument[0]) + 1
                if self._shares((op, argument), items):
                    factors.append(max(1.0, most / max(1, _letters(items))) if most == size else most)
                    scans = 1.0
                elif most == size:
                    scans = size / 3 if _is_class(argument[2]) else _TURN * size
        large = sum(factor > _MANY for factor in factors)
        return math.prod(factors) * scans * inner / math.factorial(large)

    def _shares(self, item: tuple[str, Any], rest: list[tuple[str, Any]]) -> bool:
        """Whether a repeat can leave characters that it takes to what follows it."""
        ignore_case = self._ignore_case
        shared = first(flat(item[1][2]), ignore_case) & first(rest, ignore_case)
        return elastic(*item) and bool(shared) and not _fenced(item, rest, ignore_case)


def _is_class(tree: Any) -> bool:
    """Whether it is one character, of some class."""
    items = flat(tree)
    return len(items) == 1 and width(*items[0]) == (1, 1) and items[0][0] not in REPEATS


def _without_tail(items: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Without what a search need not try: the repeats at its end, which match as soon as they are reached."""
    while items and items[-1][0] in REPEATS and items[-1][1][0] == 0:
        items = items[:-1]
    return items


def _letters(items: list[tuple[str, Any]]) -> int:
    """How many letters the text must have next: the more, the rarer the places where it can go on."""
    count = 0
    for op, _ in items:
        if op == "LITERAL":
            count += 1
        elif op != "AT":
            break
    return count


def _asserted(tree: Any) -> list[Any]:
    """The assertions inside ``tree``, which is a repeat's body: each is tried again at every turn."""
    found = []
    for op, argument in tree:
        if str(op) in ("ASSERT", "ASSERT_NOT"):
            found.append(argument[1])
        for child in children(str(op), argument):
            found += _asserted(child)
    return found
