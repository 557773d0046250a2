"""The text that every match of a pattern must hold: what a line is looked through for, before it is tried."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from snapbreaker.monitor.pattern_tree import REPEATS, parsed


def needles(pattern: str, flags: int = 0) -> frozenset[str] | None:
    """Lower-case ASCII strings of which every match holds at least one; None when there is no such set."""
    return _needles(parsed(pattern, flags))


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
    if op in REPEATS and argument[0] >= 1:
        return _needles(argument[2])
    if op == "BRANCH":
        branches = [_needles(branch) for branch in argument[1]]
        return None if None in branches else frozenset().union(*(b for b in branches if b))
    return None
