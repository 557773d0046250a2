"""A comparison of two trees at those paths only at which they may differ."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from snapbreaker.files.bounds import Bounds, between
from snapbreaker.files.entry import Entry, sort_key
from snapbreaker.files.tree import Tree
from snapbreaker.files.wrapped import Wrapped
from snapbreaker.parallel import processes_for


class _Pair(NamedTuple):
    """One path on both sides (None: not there), and whether all below it is to be read and shown too."""

    path: bytes
    old: Entry | None
    new: Entry | None
    whole: bool


class _Pairs:
    """The ``paths`` of both trees, looked up when a part of them is asked for."""

    def __init__(self, old: Tree, new: Tree, paths: Iterable[bytes]) -> None:
        self._old, self._new = old, new
        self.paths = sorted(paths, key=sort_key)
        self._keys = [sort_key(path) for path in self.paths]
        self._last: tuple[Bounds, list[_Pair]] | None = None

    def within(self, bounds: Bounds) -> list[_Pair]:
        """Those of a part, without what lies in a directory that is shown whole: with it, that is."""
        if self._last is None or self._last[0] is not bounds:
            stop = len(self.paths) if bounds.stop is None else bisect_left(self._keys, sort_key(bounds.stop))
            paths = self.paths[bisect_left(self._keys, sort_key(bounds.start)) : stop]
            self._last = bounds, list(self._shown(paths, self._whole_above(bounds.start)))
        return self._last[1]

    def _shown(self, paths: list[bytes], covered: bytes) -> Iterator[_Pair]:
        for path, old, new in zip(paths, self._old.lookups(paths), self._new.lookups(paths), strict=True):
            if not path.startswith(covered):
                whole = _goes_whole(old, new)
                yield _Pair(path, old, new, whole)
                if whole:
                    covered = path + b"/" if path else b""

    def _whole_above(self, start: bytes) -> bytes:
        """The directory above ``start`` that is shown whole, with its slash, in an earlier part."""
        known = frozenset(self.paths)
        for path in sorted(_above([start]), key=len):
            if path != start and path in known and _goes_whole(self._old.lookup(path), self._new.lookup(path)):
                return path + b"/" if path else b""
        return b"\0"


class Narrowed(Wrapped):
    """One of the two trees."""

    def __init__(self, tree: Tree, pairs: _Pairs, is_old: bool) -> None:
        super().__init__(tree)
        self._pairs, self._is_old = pairs, is_old

    def walk(self, below: bytes = b"") -> Iterator[Entry]:
        inside = below + b"/" if below else b""
        for pair in self._pairs.within(_ALL):
            if pair.whole and below.startswith(pair.path + b"/" if pair.path else b""):
                yield from self._tree.walk(below)
                return
            if pair.path == below or pair.path.startswith(inside):
                yield from self._entries(pair)

    def walk_part(self, bounds: Bounds) -> Iterator[Entry]:
        for pair in self._pairs.within(bounds):
            yield from self._entries(pair)

    def parts(self, most: int) -> list[Bounds]:
        paths = self._pairs.paths
        count = min(most, processes_for(len(paths)))
        return between([b"", *(paths[len(paths) * number // count] for number in range(1, count))])

    def _entries(self, pair: _Pair) -> Iterator[Entry]:
        if pair.whole:
            yield from self._tree.walk(pair.path)
        elif (entry := pair.old if self._is_old else pair.new) is not None:
            yield entry


_ALL = Bounds()


def narrowed(
    old: Tree, new: Tree, candidates: Collection[bytes], touched: Iterable[bytes] = ()
) -> tuple[Tree, Tree]:
    """Both, so that a comparison of the two finds what one of ``old`` and ``new`` finds, when nothing differs but
    at ``candidates`` and below directories there that are not the same on both sides. ``touched`` are shown
    anyway, with the directories above.
    """
    pairs = _Pairs(old, new, {*candidates, *_above(touched)})
    return Narrowed(old, pairs, True), Narrowed(new, pairs, False)


def _above(paths: Iterable[bytes]) -> Iterator[bytes]:
    for path in paths:
        yield path
        while path:
            path = path.rpartition(b"/")[0]
            yield path


def _goes_whole(old: Entry | None, new: Entry | None) -> bool:
    """Whether what lies below may differ although nothing there has changed."""
    if not (old is not None and old.is_dir) and not (new is not None and new.is_dir):
        return False
    return (
        old is None or new is None or (old.ino, old.is_dir, old.subvolume) != (new.ino, new.is_dir, new.subvolume)
    )
