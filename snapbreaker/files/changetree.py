"""A stored set of changes seen as a tree: what the changed paths were, and nothing else.

The live tree is compared with it by the same merge as with a whole checkpoint, on the set's own paths only.
"""

from __future__ import annotations

import errno
import stat
from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from snapbreaker.files.changeset import ABSENT, Kind, Record, fingerprint
from snapbreaker.files.diff import diff
from snapbreaker.files.entry import Aspect, Change, Details, Entry, sort_key
from snapbreaker.files.policy import Policy
from snapbreaker.files.proof import Proof
from snapbreaker.files.tree import Content, Tree
from snapbreaker.files.verify import Difference, describe
from snapbreaker.files.wrapped import Wrapped
from snapbreaker.linux.libc import failure

_OF_CONTENT = Aspect.CONTENT | Aspect.SPARSE


class ChangeTree(Tree):
    """What a set of changes goes back to. ``records`` are in the order of ``sort_key``."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = [record for record in records if record.kind is not Kind.CONTEXT]
        self._context = {record.path: record for record in records if record.kind is Kind.CONTEXT}
        self._by_path = {record.path: record for record in self.records}
        # What goes back in a directory moves its mtime, also in a restore that is cut off.
        self._holding = {record.path.rpartition(b"/")[0] for record in self.records}
        self._keys = [sort_key(record.path) for record in self.records]
        self._live: Tree | None = None

    @abstractmethod
    def content(self, entry: Entry) -> Content: ...

    # What a restore asks for.

    def walk(self, below: bytes = b"") -> Iterator[Entry]:
        covered = b""
        for record in self._below(below):
            if covered and record.path.startswith(covered):
                continue
            if record.kind is Kind.DISPLACED:
                yield from self._displaced(record)
                covered = record.path + b"/"
            elif (entry := self._entry(record)) is not None:
                yield entry

    def lookup(self, path: bytes) -> Entry | None:
        record = self._by_path.get(path) or self._context.get(path)
        return None if record is None else self._entry(record)

    def details(self, entry: Entry) -> Details:
        record = self._by_path.get(entry.path)
        return self._live_details(entry) if record is None else record.details

    def _live_details(self, entry: Entry) -> Details:
        now = self._live_entry(entry.path)
        if now is None or self._live is None:
            raise failure("lookup", entry.path, errno.ENOENT)
        return self._live.details(now)

    def live_content(self, entry: Entry) -> Content:
        """The content of a path of which only metadata was changed: what it has now."""
        now = self._live_entry(entry.path)
        if now is None or self._live is None or not now.is_file:
            raise failure(
                "its content was not stored, since only its metadata was changed", entry.path, errno.ENODATA
            )
        return self._live.content(now)

    # What is left to do.

    def changes(self, live: Tree, below: bytes = b"") -> Iterator[Change]:
        """What of the set, at and below ``below``, is not yet as it was. Raises OSError."""
        self._live = live
        for change in diff(self, _Selection(self, live), Policy(), Proof.none(), below):
            record = self._by_path.get(change.path)
            aspects = change.aspects
            if (
                record is not None
                and record.kind is Kind.METADATA
                and not aspects & (Aspect.REMOVED | Aspect.TYPE)
            ):
                aspects &= ~_OF_CONTENT
            if aspects:
                yield change._replace(aspects=aspects)
        yield from self._touched(live, below)

    def verify(self, live: Tree, below: Sequence[bytes] = (b"",)) -> list[Difference]:
        """What is not as it was, with a text for a person; empty after a restore of these parts."""
        found = {change.path: change for part in below for change in self.changes(live, part)}
        return [Difference(path, change.aspects, describe(change, self, live)) for path, change in found.items()]

    def conflicts(self, live: Tree) -> list[bytes]:
        """Paths that are neither as the change left them nor as they were before it. Raises OSError."""
        found = []
        for record in self.records:
            entry = live.lookup(record.path)
            now = ABSENT if entry is None else fingerprint(entry, live.details(entry))
            if now not in (record.after, self._before(record)):
                found.append(record.path)
            elif entry is not None and entry.is_dir and record.kind is Kind.ABSENT:
                found += [inner.path for inner in live.walk(record.path) if inner.path not in self._by_path]
        return sorted(set(found), key=sort_key)

    def selected(self, live: Tree, below: bytes) -> Iterator[Entry]:
        """The live entries at the set's paths; with all below it what goes as a whole."""
        covered = b""
        for record in self._below(below):
            path = record.path
            if covered and path.startswith(covered):
                continue
            entry = live.lookup(path)
            if entry is None:
                continue
            if entry.is_dir and self._goes_whole(record, entry):
                yield from live.walk(path)
                covered = path + b"/"
            else:
                yield entry

    def _goes_whole(self, record: Record, now: Entry) -> bool:
        if record.kind in (Kind.ABSENT, Kind.DISPLACED) or record.entry is None:
            return True
        return not record.entry.is_dir or record.entry.subvolume != now.subvolume

    def _displaced(self, record: Record) -> Iterator[Entry]:
        """What lies in the record's slot, with all below it."""
        assert record.entry is not None
        yield record.entry

    def _entry(self, record: Record) -> Entry | None:
        """What the path was. Of what was changed in its metadata only, the rest is what it is now."""
        entry = record.entry
        if entry is None or record.kind is not Kind.METADATA:
            return entry
        now = self._live_entry(record.path)
        if now is None or stat.S_IFMT(now.mode) != stat.S_IFMT(entry.mode):
            return entry
        if not record.aspects & Aspect.MTIME and not (entry.is_dir and record.path in self._holding):
            entry = entry._replace(mtime_ns=now.mtime_ns)
        return entry._replace(size=now.size) if entry.is_file else entry

    def _live_entry(self, path: bytes) -> Entry | None:
        return None if self._live is None else self._live.lookup(path)

    def _before(self, record: Record) -> bytes:
        return ABSENT if record.entry is None else fingerprint(record.entry, record.details)

    def _below(self, below: bytes) -> Iterator[Record]:
        start = bisect_left(self._keys, sort_key(below))
        for record in self.records[start:]:
            if below and record.path != below and not record.path.startswith(below + b"/"):
                return
            yield record

    def _touched(self, live: Tree, below: bytes) -> Iterator[Change]:
        """Directories around changed paths: a restore that was cut off may have left them with another mtime."""
        for path, record in self._context.items():
            was, now = record.entry, None
            if not below or path == below or path.startswith(below + b"/"):
                now = live.lookup(path)
            if was is not None and now is not None and now.is_dir and now.mtime_ns != was.mtime_ns:
                yield Change(path, now._replace(mtime_ns=was.mtime_ns), now, Aspect.MTIME)


class _Selection(Wrapped):
    """The live tree, on the paths of a set of changes."""

    def __init__(self, changes: ChangeTree, live: Tree) -> None:
        super().__init__(live)
        self._changes = changes

    def walk(self, below: bytes = b"") -> Iterator[Entry]:
        return self._changes.selected(self._tree, below)
