"""A part of a tree: the paths from one to before another, in the order of a walk; and how to divide a tree so."""

from __future__ import annotations

import itertools

from snapbreaker.files.entry import Entry, sort_key

_SMALL = 5000  # entries; to divide less is not worth a process


class Bounds:
    """From ``start`` (b"": from the beginning) to before ``stop`` (None: to the end)."""

    def __init__(self, start: bytes = b"", stop: bytes | None = None) -> None:
        self.start, self.stop = start, stop
        self._first = dict(_steps(start)) if start else {}
        self._last = dict(_steps(stop)) if stop is not None else {}

    def holds(self, path: bytes) -> bool:
        """Whether ``path`` lies between the two."""
        key = sort_key(path)
        return sort_key(self.start) <= key and (self.stop is None or key < sort_key(self.stop))

    def leads_to(self, path: bytes) -> bool:
        """Whether ``path`` is a directory above ``start``: walked through, but not itself in the part."""
        return path in self._first

    def cut(self, directory: bytes, entries: list[Entry]) -> list[Entry]:
        """Of the sorted ``entries`` of a directory those to be walked."""
        first, last = self._first.get(directory), self._last.get(directory)
        if first is not None:
            entries = [
                entry for entry in entries if entry.path > first or (entry.path == first and self._enters(entry))
            ]
        if last is not None:
            entries = [entry for entry in entries if entry.path < last or (entry.path == last != self.stop)]
        return entries

    def _enters(self, entry: Entry) -> bool:
        return entry.is_dir or entry.path == self.start


def _steps(path: bytes) -> list[tuple[bytes, bytes]]:
    """Each directory above ``path``, with the path in it that leads there."""
    parts = path.split(b"/")
    paths = [b"/".join(parts[:count]) for count in range(len(parts) + 1)]
    return list(itertools.pairwise(paths))


def divide(sizes: list[tuple[bytes, int]], parts: int) -> list[Bounds]:
    """``parts`` parts, or fewer, of about the same size. ``sizes``: directories in the order of a walk, and how
    many entries come before each; the last one's number stands for the whole.
    """
    whole = sizes[-1][1] if sizes else 0
    starts = [b""]
    if whole < _SMALL:
        return [Bounds()]
    for path, before in sizes:
        if path and before >= whole * len(starts) // parts and len(starts) < parts:
            starts.append(path)
    return between(starts)


def between(starts: list[bytes]) -> list[Bounds]:
    """The parts that begin at each of ``starts``, of which the first is b""."""
    stops: list[bytes | None] = [*starts[1:], None]
    return [Bounds(start, stop) for start, stop in zip(starts, stops, strict=True)]
