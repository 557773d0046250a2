"""A tree that tells how far its reading is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from snapbreaker.files.bounds import Bounds
from snapbreaker.files.entry import Details, Entry
from snapbreaker.files.tree import Content, Tree
from snapbreaker.files.wrapped import Wrapped
from snapbreaker.parallel import Counts, number
from snapbreaker.progress import Progress

T = TypeVar("T")

_EVERY = 1024  # entries
_EVERY_OCTETS = 16 << 20


class Watched(Wrapped):
    """``tree``, whose entries, and the sizes of files whose content is asked for, are counted."""

    def __init__(self, tree: Tree, phase: str, progress: Progress) -> None:
        super().__init__(tree)
        self._phase, self._progress = phase, progress
        self._entries = self._octets = 0  # since they were told
        self._all_entries, self._all_octets = Counts(), Counts()

    def walk(self, below: bytes = b"") -> Iterator[Entry]:
        return self._counted(self._tree.walk(below))

    def walk_part(self, bounds: Bounds) -> Iterator[Entry]:
        return self._counted(self._tree.walk_part(bounds))

    def lookup(self, path: bytes) -> Entry | None:
        return next(self.lookups([path]))

    def lookups(self, paths: Iterable[bytes]) -> Iterator[Entry | None]:
        return self._counted(self._tree.lookups(paths))

    def content(self, entry: Entry) -> Content:
        self._count(entry.size)
        return self._tree.content(entry)

    def read(self, entry: Entry) -> tuple[Details, Content]:
        self._count(entry.size)
        return self._tree.read(entry)

    def _counted(self, entries: Iterable[T]) -> Iterator[T]:
        for entry in entries:
            self._entries += 1
            if self._entries >= _EVERY:
                self._tell()
            yield entry

    def _count(self, octets: int) -> None:
        self._octets += octets
        if self._octets >= _EVERY_OCTETS:
            self._tell()

    def _tell(self) -> None:
        self._all_entries.add(self._entries)
        self._all_octets.add(self._octets)
        self._entries = self._octets = 0
        if number() == 0:
            self._progress(self._phase, self._all_entries.sum, self._all_octets.sum)
