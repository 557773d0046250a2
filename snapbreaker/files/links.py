"""Hard-link groups of two trees, compared while the trees stream by."""

from __future__ import annotations

from collections.abc import Iterator

from snapbreaker.files.entry import Aspect, Change, Entry

_Inode = tuple[int, int]


class LinkGroups:
    """Which paths share an inode, on the old and on the new side.

    Only what may have changed needs to be noted: making or removing a link gives the inode a new ctime, so while
    one path of a group is proven unchanged, all of them are, and the group is the same on both sides. Links from
    outside of what is compared (the vault, kept paths) do not count.
    """

    def __init__(self) -> None:
        self._old: dict[_Inode, list[bytes]] = {}
        self._new: dict[_Inode, list[bytes]] = {}
        self._held: list[Change] = []

    def note(self, old: Entry | None, new: Entry | None) -> bool:
        """Remember one path, in the order of the walk; whether it is one of several links on either side."""
        linked = False
        for entry, groups in ((old, self._old), (new, self._new)):
            if entry is not None and entry.nlink > 1 and not entry.is_dir:
                groups.setdefault((entry.dev, entry.ino), []).append(entry.path)
                linked = True
        return linked

    def join(self, other: LinkGroups) -> None:
        """Take over what was noted and held of the part of the trees that follows."""
        for mine, theirs in ((self._old, other._old), (self._new, other._new)):
            for inode, paths in theirs.items():
                mine.setdefault(inode, []).extend(paths)
        self._held += other._held

    def hold(self, change: Change) -> None:
        """Keep a path, which may differ in nothing so far, until its group is known."""
        self._held.append(change)

    def changes(self) -> Iterator[Change]:
        """What was held, with LINKS where the group differs, without what does not differ at all."""
        verdicts: dict[tuple[_Inode, _Inode], bool] = {}
        for change in self._held:
            old, new = change.old, change.new
            assert old is not None
            assert new is not None
            key = ((old.dev, old.ino), (new.dev, new.ino))
            group, other = self._old.get(key[0], [change.path]), self._new.get(key[1], [change.path])
            if min(len(group), len(other)) == 1:
                differs = group != other
            elif key in verdicts:
                differs = verdicts[key]
            else:
                differs = verdicts[key] = group != other
            aspects = change.aspects | Aspect.LINKS if differs else change.aspects
            if aspects:
                yield change._replace(aspects=aspects)
