"""A comparison of two trees at those paths only at which they may differ."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from snapbreaker.files.bounds import WORTH_A_PROCESS, Bounds, between
from snapbreaker.files.entry import Entry, sort_key
from snapbreaker.files.tree import Tree
from snapbreaker.files.wrapped import Wrapped


class Narrowed(Wrapped):
    """``tree`` at ``paths``, sorted, none twice: the entry of each (None: not there), and whether all below it is
    read and shown too.
    """

    def __init__(self, tree: Tree, paths: list[tuple[bytes, Entry | None, bool]]) -> None:
        super().__init__(tree)
        self._paths = paths

    def walk_part(self, bounds: Bounds) -> Iterator[Entry]:
        return Narrowed(self._tree, [one for one in self._paths if bounds.holds(one[0])]).walk()

    def parts(self, most: int) -> list[Bounds]:
        """None begins inside of a directory that is shown whole."""
        starts, covered, size = [b""], b"\0", len(self._paths) // most + 1
        for number, (path, _, whole) in enumerate(self._paths):
            if path.startswith(covered):
                continue
            if number >= size * len(starts) and size >= WORTH_A_PROCESS:
                starts.append(path)
            if whole:
                covered = path + b"/" if path else b""
        return between(starts)

    def walk(self, below: bytes = b"") -> Iterator[Entry]:
        inside, covered = below + b"/" if below else b"", b"\0"
        for path, entry, whole in self._paths:
            if whole and below.startswith(path + b"/" if path else b""):
                yield from self._tree.walk(below)
                return
            if path.startswith(covered) or not (path == below or path.startswith(inside)):
                continue
            if whole:
                covered = path + b"/" if path else b""
                yield from self._tree.walk(path)
            elif entry is not None:
                yield entry


def narrowed(
    old: Tree, new: Tree, candidates: Collection[bytes], touched: Iterable[bytes] = ()
) -> tuple[Tree, Tree]:
    """Both, so that a comparison of the two finds what one of ``old`` and ``new`` finds, when nothing differs but
    at ``candidates`` and below directories there that are not the same on both sides. ``touched`` are shown
    anyway, with the directories above.
    """
    paths = sorted({*candidates, *_above(touched)}, key=sort_key)
    olds, news = [], []
    for path, then, now in zip(paths, old.lookups(paths), new.lookups(paths), strict=True):
        whole = _goes_whole(then, now)
        olds.append((path, then, whole))
        news.append((path, now, whole))
    return Narrowed(old, olds), Narrowed(new, news)


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
