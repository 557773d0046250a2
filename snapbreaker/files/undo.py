"""The undo set: what a checkpoint becomes when the change stays. Only changed paths, with their old content."""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Iterable
from contextlib import suppress

from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError
from snapbreaker.files import changeset, ops
from snapbreaker.files.changeset import ABSENT, Kind, Record, fingerprint
from snapbreaker.files.changetree import ChangeTree
from snapbreaker.files.content import append_content
from snapbreaker.files.entry import Aspect, Change, Details, Entry
from snapbreaker.files.tree import Content, Extent, Tree
from snapbreaker.linux.inode import FLAG_NOCOW

NAME, PACK = b"undo", b"undo.pack"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A file that differs in one of these is made anew when it is restored.
_NEEDS_CONTENT = Aspect.CONTENT | Aspect.SPARSE | Aspect.TYPE | Aspect.REMOVED | Aspect.LINKS


@dataclass(frozen=True, slots=True)
class Counts:
    added: int = 0
    changed: int = 0
    removed: int = 0


class UndoSet(ChangeTree):
    """What the paths were that a run changed. ``octets`` is the size of the content that is stored."""

    def __init__(self, records: list[Record], pack_fd: int) -> None:
        super().__init__(records)
        self._pack = pack_fd
        self.octets = sum(extent.length for record in records for extent in record.extents)

    @classmethod
    def open(cls, record_dir: str, vault_dir: str) -> UndoSet:
        """The undo set of a volume. Raises CheckpointError when it is not there or not whole."""
        try:
            record_fd = os.open(record_dir, _DIRECTORY)
            try:
                records = changeset.read(record_fd, NAME)
            finally:
                os.close(record_fd)
            pack = os.open(os.fsencode(vault_dir) + b"/" + PACK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            where = os.fsdecode(error.filename or record_dir)
            raise CheckpointError(f"the undo set cannot be read: {where}: {error.strerror}") from error
        size = os.fstat(pack).st_size
        if any(extent.source + extent.length > size for record in records for extent in record.extents):
            os.close(pack)
            raise CheckpointError(f"the undo set in {vault_dir} is not whole: its content is cut off")
        return cls(records, pack)

    @property
    def counts(self) -> Counts:
        """How many paths the run added, changed and removed."""
        added = sum(record.kind is Kind.ABSENT for record in self.records)
        removed = sum(record.kind is not Kind.ABSENT and record.after == ABSENT for record in self.records)
        return Counts(added, len(self.records) - added - removed, removed)

    def content(self, entry: Entry) -> Content:
        record = self._by_path[entry.path]
        if record.kind is Kind.METADATA:
            return self.live_content(entry)
        return Content(self._pack, entry.size, record.extents, owned=False)

    def close(self) -> None:
        if self._pack >= 0:
            os.close(self._pack)
            self._pack = -1


def build_undo(old: Tree, live: Tree, changes: Iterable[Change], vault_dir: str, record_dir: str) -> UndoSet:
    """Store what undoes ``changes``: content in ``vault_dir``, the rest in ``record_dir``.

    Replaces an earlier one; on disk when this returns, and until then the earlier one, or none, is found.
    Raises OSError.
    """
    vault, record = os.open(vault_dir, _DIRECTORY), os.open(record_dir, _DIRECTORY)
    try:
        temporary = PACK + b".new"
        with suppress(FileNotFoundError):
            ops.unlink(vault, temporary)
        pack = ops.create(vault, temporary)
        try:
            records = _Builder(old, live, pack).records(changes)
            ops.fsync(pack)
        finally:
            os.close(pack)
        with suppress(FileNotFoundError):
            ops.unlink(record, NAME)  # it belongs to another pack
        ops.replace(vault, temporary, PACK)
        ops.fsync(vault)
        changeset.write(record, NAME, records)
    finally:
        os.close(vault)
        os.close(record)
    return UndoSet.open(record_dir, vault_dir)


class _Builder:
    def __init__(self, old: Tree, live: Tree, pack: int) -> None:
        self._old, self._live, self._pack = old, live, pack
        self._end = 0
        self._stored: dict[tuple[int, int], tuple[Extent, ...]] = {}

    def records(self, changes: Iterable[Change]) -> list[Record]:
        records = {change.path: self._record(change) for change in changes}
        for entry in self._around(records):
            records.setdefault(entry.path, Record(entry.path, Kind.CONTEXT, Aspect.NONE, entry))
        return list(records.values())

    def _around(self, paths: Collection[bytes]) -> list[Entry]:
        """The directories whose mtime a restore of ``paths`` moves: those that hold them, and the top of each
        subvolume, where its slots are made.
        """
        lookup = functools.cache(self._old.lookup)
        found = {above: lookup(above) for above in (path.rpartition(b"/")[0] for path in paths if path)}
        climbed: set[bytes] = set()
        for above in list(found):
            while above not in climbed:
                climbed.add(above)
                entry = lookup(above)
                if entry is not None and entry.subvolume:
                    found[above] = entry
                    break
                above = above.rpartition(b"/")[0]
        return [entry for entry in found.values() if entry is not None]

    def _record(self, change: Change) -> Record:
        path, entry = change.path, change.old
        after, present = ABSENT, Details()
        if change.new is not None:
            present = self._live.details(change.new)
            after = fingerprint(change.new, present)
        if entry is None:
            return Record(path, Kind.ABSENT, change.aspects, after=after)
        details = self._old.details(entry)
        anew = change.aspects & _NEEDS_CONTENT or not (entry.is_file or entry.is_dir)
        if not anew and not (entry.is_file and (details.flags ^ present.flags) & FLAG_NOCOW):
            return Record(path, Kind.METADATA, change.aspects, entry, details, after=after)
        extents = self._store(entry) if entry.is_file else ()
        return Record(path, Kind.STORED, change.aspects, entry, details, extents, after=after)

    def _store(self, entry: Entry) -> tuple[Extent, ...]:
        inode = (entry.dev, entry.ino)
        if entry.nlink > 1 and inode in self._stored:
            return self._stored[inode]
        if not entry.size:
            return ()
        content = self._old.content(entry)
        try:
            extents, self._end = append_content(content, self._pack, self._end)
        finally:
            content.close()
        self._stored[inode] = extents
        return extents
