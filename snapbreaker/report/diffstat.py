"""How much differs, by directory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from snapbreaker.dataclass import dataclass
from snapbreaker.files.entry import Change, Entry
from snapbreaker.paths import is_below
from snapbreaker.report.model import absolute
from snapbreaker.report.wording import path_text, size_text

HEAD = ("added", "changed", "removed", "more", "less")


@dataclass(slots=True)
class Stat:
    """What differs at and below ``path``.

    ``more`` are bytes that are there now and were not, ``less`` the reverse: a file that grew counts with what it
    grew by, one of several hard links once.
    """

    path: str
    added: int = 0
    changed: int = 0
    removed: int = 0
    more: int = 0
    less: int = 0

    def count(self, change: Change, size_then: int, size_now: int) -> None:
        self.added += change.old is None
        self.removed += change.new is None
        self.changed += change.old is not None and change.new is not None
        self.more += max(size_now - size_then, 0)
        self.less += max(size_then - size_now, 0)


class Stats:
    """One ``Stat`` for each path directly below one of ``wanted``, or else below a volume's root."""

    def __init__(self, wanted: Sequence[str] = ()) -> None:
        self._wanted = sorted(wanted, key=len, reverse=True)
        self._stats: dict[str, Stat] = {}
        self._seen: set[tuple[bool, int, int]] = set()
        self.total = Stat("")

    def add(self, root: str, change: Change) -> None:
        path = absolute(root, change.path)
        top = next((each for each in self._wanted if is_below(path, each)), root)
        where = _below(path, top)
        then, now = self._size(change.old, False), self._size(change.new, True)
        for stat in (self._stats.setdefault(where, Stat(where)), self.total):
            stat.count(change, then, now)

    def __iter__(self) -> Iterator[Stat]:
        return iter(sorted(self._stats.values(), key=lambda stat: stat.path))

    def lines(self) -> Iterator[str]:
        """A table for a person, the sum last."""
        rows = [(*_cells(stat), path_text(stat.path)) for stat in self]
        rows = [(*HEAD, ""), *rows, (*_cells(self.total), "in all")]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
        for row in rows:
            numbers = "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=False))
            yield f"{numbers}  {row[-1]}".rstrip()

    def _size(self, entry: Entry | None, now: bool) -> int:
        if entry is None or not entry.is_file:
            return 0
        inode = (now, entry.dev, entry.ino)
        if entry.nlink > 1 and inode in self._seen:
            return 0
        self._seen.add(inode)
        return entry.size


def _cells(stat: Stat) -> tuple[str, ...]:
    return (
        f"{stat.added:,}",
        f"{stat.changed:,}",
        f"{stat.removed:,}",
        size_text(stat.more),
        size_text(stat.less),
    )


def _below(path: str, top: str) -> str:
    """``path`` cut off after the first name below ``top``."""
    start = len(top.rstrip("/")) + 1
    end = path.find("/", start)
    return path if end < 0 else path[:end]
