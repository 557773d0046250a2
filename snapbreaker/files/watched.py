"""A tree that tells how far its reading is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from snapbreaker.files.entry import Details, Entry
from snapbreaker.files.tree import Content, Tree
from snapbreaker.files.wrapped import Wrapped
from snapbreaker.progress import Progress

_EVERY = 1024  # entries
_EVERY_OCTETS = 16 << 20


class Watched(Wrapped):
    """``tree``, whose entries, and the sizes of files whose content is asked for, are counted."""

    def __init__(self, tree: Tree, phase: str, progress: Progress) -> None:
        super().__init__(tree)
        self._phase, self._progress = phase, progress
        self._entries = self._octets = self._told = 0

    def walk(self, below: bytes = b"") -> Iterator[Entry]:
        for entry in self._tree.walk(below):
            self._entries += 1
            if not self._entries % _EVERY:
                self._tell()
            yield entry

    def lookup(self, path: bytes) -> Entry | None:
        return next(self.lookups([path]))

    def lookups(self, paths: Iterable[bytes]) -> Iterator[Entry | None]:
        for entry in self._tree.lookups(paths):
            self._entries += 1
            if not self._entries % _EVERY:
                self._tell()
            yield entry

    def content(self, entry: Entry) -> Content:
        self._count(entry.size)
        return self._tree.content(entry)

    def read(self, entry: Entry) -> tuple[Details, Content]:
        self._count(entry.size)
        return self._tree.read(entry)

    def _count(self, octets: int) -> None:
        self._octets += octets
        if self._octets - self._told >= _EVERY_OCTETS:
            self._tell()

    def _tell(self) -> None:
        self._told = self._octets
        self._progress(self._phase, self._entries, self._octets)
