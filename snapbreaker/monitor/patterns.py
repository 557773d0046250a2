"""What a pattern's syntax tree tells: the text that every match must hold, and whether matching could run away.

The tree is that of the standard library's own parser (``re._parser``, Python 3.11 and later).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

_parser = importlib.import_module("re._parser")
_UNBOUNDED = 64  # a repeat that may go on this often counts as endless
_DEGREE = 3  # the most endless wildcards in a row: cost grows by one power of the line's length with each

_CHARS = frozenset(map(chr, range(128))) | {"é"}
_CATEGORY = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}
_CATEGORY_CHARS = {
    name: frozenset(c for c in _CHARS if re.match(pattern, c)) for name, pattern in _CATEGORY.items()
}


def needles(pattern: str, flags: int = 0) -> frozenset[str] | None:
    """Lower-case ASCII strings of which every match holds at least one; None when there is no such set."""
    return _needles(_parser.parse(pattern, flags))


def runaway(pattern: str, flags: int = 0, *, anchored: bool = False) -> str | None:
    """Why matching could take time without bound (catastrophic backtracking), or None.

    ``anchored`` says that the pattern is matched against the whole line, not searched in it.
    """
    tree = _parser.parse(pattern, flags)
    ignore_case = bool(tree.state.flags & re.IGNORECASE)
    if any(_ambiguous(body, ignore_case) for body in _endless_bodies(tree)):
        return "an endless repeat inside an endless repeat, like (a+)+, can take time without bound"
    if _wildcards(tree) + (not anchored) > _DEGREE:
        return f"more than {_DEGREE - (not anchored)} wildcards like .* in a row can take time without bound"
    return None


def _needles(tree: Iterable[Any]) -> frozenset[str] | None:
    candidates: list[frozenset[str]] = []
    run = ""
    for op, argument in tree:
        char = _letter(str(op), argument)
        if char:
            run += char
            continue
        candidates.append(frozenset({run}))
        run = ""
        inner = _inner_needles(str(op), argument)
        if inner:
            candidates.append(inner)
    candidates.append(frozenset({run}))
    best = max(candidates, key=lambda found: (min(map(len, found)), -len(found)))
    return best if min(map(len, best)) >= 3 else None


def _letter(op: str, argument: Any) -> str:
    """The one ASCII character that the node stands for, lower-cased; empty if it is not so simple."""
    if op == "LITERAL" and argument < 128:
        return chr(argument).lower()
    if op == "IN" and all(str(o) == "LITERAL" and a < 128 for o, a in argument):
        letters = {chr(a).lower() for _, a in argument}
        return letters.pop() if len(letters) == 1 else ""
    return ""


def _inner_needles(op: str, argument: Any) -> frozenset[str] | None:
    if op == "SUBPATTERN":
        return _needles(argument[3])
    if op == "ATOMIC_GROUP":
        return _needles(argument)
    if op in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT") and argument[0] >= 1:
        return _needles(argument[2])
    if op == "BRANCH":
        branches = [_needles(branch) for branch in argument[1]]
        return None if None in branches else frozenset().union(*(b for b in branches if b))
    return None


def _children(op: str, argument: Any) -> Iterator[Any]:
    if op == "SUBPATTERN":
        yield argument[3]
    elif op == "ATOMIC_GROUP":
        yield argument
    elif op == "BRANCH":
        yield from argument[1]
    elif op in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        yield argument[2]
    elif op in ("ASSERT", "ASSERT_NOT"):
        yield argument[1]
    elif op == "GROUPREF_EXISTS":
        yield from (branch for branch in argument[1:] if branch is not None)


def _endless(op: str, argument: Any) -> bool:
    return op in ("MAX_REPEAT", "MIN_REPEAT") and int(argument[1]) >= _UNBOUNDED


def _endless_bodies(tree: Any) -> Iterator[Any]:
    for op, argument in tree:
        if _endless(str(op), argument):
            yield argument[2]
        for child in _children(str(op), argument):
            yield from _endless_bodies(child)


def _ambiguous(body: Any, ignore_case: bool) -> bool:
    """Whether the body of an endless repeat can match one text in several ways."""
    items = _flat(body)
    elastic = frozenset[str]().union(*(_node_chars(op, a, ignore_case) for op, a in items if _elastic(op, a)))
    fences = [_node_chars(op, a, ignore_case) for op, a in items if _mandatory(op, a) and not _elastic(op, a)]
    if elastic and not any(fence.isdisjoint(elastic) for fence in fences):
        return True
    for op, argument in items:
        if op == "BRANCH":
            starts = [_chars(branch[:1], ignore_case) for branch in argument[1]]
            if any(a & b for i, a in enumerate(starts) for b in starts[:i]):
                return True
            if any(_ambiguous(branch, ignore_case) for branch in argument[1]):
                return True
    return False


def _width(op: str, argument: Any) -> tuple[int, int]:
    """The least and the greatest number of characters that the node matches."""
    if op in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        low, high = argument[2].getwidth()
        return argument[0] * low, int(argument[1]) * high
    if op == "BRANCH":
        widths = [branch.getwidth() for branch in argument[1]]
        return min(low for low, _ in widths), max(high for _, high in widths)
    return (1, 1) if op in ("LITERAL", "NOT_LITERAL", "IN", "ANY") else (0, 0)


def _elastic(op: str, argument: Any) -> bool:
    """Whether the node can match more or fewer characters, so that its neighbours can take some of them."""
    low, high = _width(op, argument)
    return low != high


def _mandatory(op: str, argument: Any) -> bool:
    return _width(op, argument)[0] > 0


def _flat(tree: Any) -> list[tuple[str, Any]]:
    """The nodes of a sequence with its groups opened."""
    found: list[tuple[str, Any]] = []
    for op, argument in tree:
        if str(op) in ("SUBPATTERN", "ATOMIC_GROUP"):
            found += _flat(next(_children(str(op), argument)))
        else:
            found.append((str(op), argument))
    return found


def _chars(tree: Any, ignore_case: bool) -> frozenset[str]:
    """Every character that the nodes may match."""
    return frozenset().union(*(_node_chars(str(op), argument, ignore_case) for op, argument in tree))


def _node_chars(op: str, argument: Any, ignore_case: bool) -> frozenset[str]:
    if op == "LITERAL":
        found = frozenset({chr(argument)})
    elif op == "NOT_LITERAL":
        found = _CHARS - {chr(argument)}
    elif op == "ANY":
        found = _CHARS
    elif op == "RANGE":
        found = frozenset(c for c in _CHARS if argument[0] <= ord(c) <= argument[1])
    elif op == "CATEGORY":
        found = _CATEGORY_CHARS[str(argument)]
    elif op == "IN":
        negated = str(argument[0][0]) == "NEGATE"
        found = _chars(argument[1:] if negated else argument, ignore_case)
        return _CHARS - found if negated else found
    elif op in ("ASSERT", "ASSERT_NOT"):
        found = frozenset()
    else:
        found = frozenset().union(*(_chars(child, ignore_case) for child in _children(op, argument)))
    return found | {c.swapcase() for c in found} if ignore_case else found


def _wildcards(tree: Any) -> int:
    """How many endless repeats of at least half of all characters follow one another."""
    count = 0
    for op, argument in _flat(tree):
        if op == "BRANCH":
            count += max(_wildcards(branch) for branch in argument[1])
        elif _endless(op, argument):
            count += len(_chars(argument[2], False)) > len(_CHARS) // 2
    return count
