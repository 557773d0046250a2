"""The syntax tree of a pattern: which characters its nodes match, and how many of them.

The tree is that of the standard library's own parser (``re._parser``, Python 3.11 and later).
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Iterator
from typing import Any

_PARSER = importlib.import_module("re._parser")
REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
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


def parsed(pattern: str, flags: int = 0) -> Any:
    """Its tree. Raises what ``re.compile`` does, but does not warn as that does: nobody would know of what."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _PARSER.parse(pattern, flags)


def children(op: str, argument: Any) -> Iterator[Any]:
    if op == "SUBPATTERN":
        yield argument[3]
    elif op == "ATOMIC_GROUP":
        yield argument
    elif op == "BRANCH":
        yield from argument[1]
    elif op in REPEATS:
        yield argument[2]
    elif op in ("ASSERT", "ASSERT_NOT"):
        yield argument[1]
    elif op == "GROUPREF_EXISTS":
        yield from (branch for branch in argument[1:] if branch is not None)


def width(op: str, argument: Any) -> tuple[int, int]:
    """The least and the greatest number of characters that the node matches."""
    if op in REPEATS:
        low, high = argument[2].getwidth()
        return argument[0] * low, int(argument[1]) * high
    if op == "BRANCH":
        widths = [branch.getwidth() for branch in argument[1]]
        return min(low for low, _ in widths), max(high for _, high in widths)
    return (1, 1) if op in ("LITERAL", "NOT_LITERAL", "IN", "ANY") else (0, 0)


def elastic(op: str, argument: Any) -> bool:
    """Whether the node can match more or fewer characters, so that its neighbours can take some of them."""
    low, high = width(op, argument)
    return low != high


def flat(tree: Any) -> list[tuple[str, Any]]:
    """The nodes of a sequence with its groups opened."""
    found: list[tuple[str, Any]] = []
    for op, argument in tree:
        if str(op) in ("SUBPATTERN", "ATOMIC_GROUP"):
            found += flat(next(children(str(op), argument)))
        else:
            found.append((str(op), argument))
    return found


def chars(tree: Any, ignore_case: bool) -> frozenset[str]:
    """Every character that the nodes may match."""
    return frozenset().union(*(node_chars(str(op), argument, ignore_case) for op, argument in tree))


def node_chars(op: str, argument: Any, ignore_case: bool) -> frozenset[str]:
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
        found = chars(argument[1:] if negated else argument, ignore_case)
        return _CHARS - found if negated else found
    elif op in ("ASSERT", "ASSERT_NOT"):
        found = frozenset()
    else:
        found = frozenset().union(*(chars(child, ignore_case) for child in children(op, argument)))
    return found | {c.swapcase() for c in found} if ignore_case else found


def first(items: list[tuple[str, Any]], ignore_case: bool, follow: frozenset[str] = frozenset()) -> frozenset[str]:
    """The characters with which a text that ``items`` match may begin; ``follow``: where they match none."""
    found = frozenset[str]()
    for op, argument in items:
        if op in REPEATS:
            found |= first(flat(argument[2]), ignore_case)
        elif op == "BRANCH":
            found = found.union(*(first(flat(branch), ignore_case) for branch in argument[1]))
        else:
            found |= node_chars(op, argument, ignore_case)
        if width(op, argument)[0] > 0:
            return found
    return found | follow
