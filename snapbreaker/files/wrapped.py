"""A tree seen through another one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from snapbreaker.files.bounds import Bounds
from snapbreaker.files.entry import Details, Entry
from snapbreaker.files.tree import Content, Tree


class Wrapped(Tree):
    """Shows ``tree`` as it is, which stays its owner's to close. Subclasses change what they are about."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.quiet = tree.quiet

    def learned(self) -> Any:
        return self._tree.learned()

    def learn(self, learned: Any) -> None:
        self._tree.learn(learned)

    def parts(self, most: int) -> list[Bounds]:
        return self._tree.parts(most)

    def walk_part(self, bounds: Bounds) -> Iterator[Entry]:
        return self._tree.walk_part(bounds)

    def walk(self, below: bytes = b"") -> Iterator[Entry]:
        return self._tree.walk(below)

    def lookup(self, path: bytes) -> Entry | None:
        return self._tree.lookup(path)

    def lookups(self, paths: Iterable[bytes]) -> Iterator[Entry | None]:
        return self._tree.lookups(paths)

    def details(self, entry: Entry) -> Details:
        return self._tree.details(entry)

    def flags_and_project(self, entry: Entry) -> tuple[int, int]:
        return self._tree.flags_and_project(entry)

    def content(self, entry: Entry) -> Content:
        return self._tree.content(entry)

    def read(self, entry: Entry) -> tuple[Details, Content]:
        return self._tree.read(entry)

    def shares_numbers(self, new: Tree) -> bool:
        return self._tree.shares_numbers(unwrapped(new))

    def stands_for(self, entry: Entry, other: Entry) -> bool:
        return self._tree.stands_for(entry, other)


def unwrapped(tree: Tree) -> Tree:
    """The one that is seen through all others."""
    while isinstance(tree, Wrapped):
        tree = tree._tree
    return tree
