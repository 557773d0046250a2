"""A comparison of two trees by several processes, each of a part of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from snapbreaker.files.bounds import Bounds
from snapbreaker.files.diff import Comparison, diff
from snapbreaker.files.entry import Change
from snapbreaker.files.links import LinkGroups
from snapbreaker.files.policy import Policy
from snapbreaker.files.proof import Proof
from snapbreaker.files.tree import Tree
from snapbreaker.parallel import how_many, in_parallel

_Found = tuple[list[Change], LinkGroups, tuple[Any, Any]]


def diff_divided(
    old: Tree,
    new: Tree,
    policy: Policy,
    proof: Proof,
    below: bytes = b"",
    *,
    touched: Collection[bytes] = (),
) -> Iterator[Change]:
    """As ``diff``: the same changes in the same order."""
    parts = [Bounds()] if below else old.parts(how_many())
    if len(parts) == 1:
        yield from diff(old, new, policy, proof, below, touched=touched)
        return

    def compare(number: int) -> _Found:
        comparison = Comparison(old, new, policy, proof, touched)
        found = comparison.run(old.walk_part(parts[number]), new.walk_part(parts[number]))
        return list(found), comparison.groups, (old.learned(), new.learned())

    groups = LinkGroups()
    for found, theirs, learned in in_parallel(len(parts), compare):
        yield from found
        groups.join(theirs)
        old.learn(learned[0])
        new.learn(learned[1])
    yield from groups.changes()
