"""A restore seen the other way round: what it displaced, so that a rollback can itself be undone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Self

from snapbreaker.errors import CheckpointError
from snapbreaker.files import changeset
from snapbreaker.files.changeset import ABSENT, Kind, Record, fingerprint
from snapbreaker.files.changetree import ChangeTree
from snapbreaker.files.entry import Aspect, Details, Entry, sort_key
from snapbreaker.files.live import LiveTree
from snapbreaker.files.restore import PLAN
from snapbreaker.files.stage import Stage, identity_of, opened, put_in_place, read_staged, read_unlocked
from snapbreaker.files.tree import Content

TOPS = b"tops"


class Displaced(ChangeTree):
    """What the paths were before one attempt of a restore.

    Of an attempt that was cut off only those paths are displaced that it had got to. To undo several attempts,
    take the last one first.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._unlocked = read_unlocked(stage.fd)
        staged = {(domain, slot): identity for domain, slot, identity in read_staged(stage.fd)}
        records = changeset.read(stage.fd, PLAN)
        there = [record for record in records if self._is_there(record, staged)]
        stayed = _of_their_groups(there, records)
        self._stayed = {record.path for record in stayed}
        super().__init__(sorted([*there, *stayed], key=lambda record: sort_key(record.path)))
        self._slots: dict[int, LiveTree] = {}

    @classmethod
    def open(cls, vault_dir: str, attempt: int, live: LiveTree) -> Self:
        """What attempt ``attempt`` displaced. Raises CheckpointError when it changed nothing or is not whole."""
        try:
            stage = opened(vault_dir, attempt, live.root_fd)
        except OSError as error:
            raise CheckpointError(f"restore {attempt} in {vault_dir} cannot be read: {error.strerror}") from error
        try:
            return cls(stage)
        except OSError as error:
            stage.close()
            raise CheckpointError(f"restore {attempt} in {vault_dir} changed nothing") from error
        except BaseException:
            stage.close()
            raise

    def lookup(self, path: bytes) -> Entry | None:
        record, inner = self._slot_of(path)
        if record is None or not inner:
            return super().lookup(path)
        entry = self._tree(record).lookup(_in_slot(record, inner))
        return None if entry is None else entry._replace(path=path)

    def details(self, entry: Entry) -> Details:
        record, inner = self._slot_of(entry.path)
        if record is None and entry.path in self._stayed:
            return self._live_details(entry)
        if record is None:
            return super().details(entry)
        details = self._tree(record).details(entry._replace(path=_in_slot(record, inner)))
        flags, read_only = self._unlocked.get(entry.path, (0, False))
        return details._replace(flags=details.flags | flags, read_only=details.read_only or read_only)

    def content(self, entry: Entry) -> Content:
        record, inner = self._slot_of(entry.path)
        if record is None:
            return self.live_content(entry)
        return self._tree(record).content(entry._replace(path=_in_slot(record, inner)))

    def close(self) -> None:
        for tree in self._slots.values():
            tree.close()
        self._slots = {}
        self._stage.close()

    def _displaced(self, record: Record) -> Iterator[Entry]:
        assert record.entry is not None
        yield record.entry
        if record.entry.is_dir:
            slot = b"%d" % record.slot
            for entry in self._tree(record).walk(slot):
                if entry.path != slot:
                    yield entry._replace(path=record.path + entry.path[len(slot) :])

    def _before(self, record: Record) -> bytes:
        if record.kind is not Kind.DISPLACED or record.entry is None:
            return super()._before(record)
        return fingerprint(record.entry, self.details(record.entry))

    def _slot_of(self, path: bytes) -> tuple[Record | None, bytes]:
        """The displaced path at or above ``path``, and what comes after it (with its slash)."""
        above = path
        while True:
            record = self._by_path.get(above)
            if record is not None and record.kind is Kind.DISPLACED:
                return record, path[len(above) :]
            if not above:
                return None, b""
            above = above.rpartition(b"/")[0]

    def _tree(self, record: Record) -> LiveTree:
        if record.domain not in self._slots:
            self._slots[record.domain] = LiveTree(self._stage.slots[record.domain])
        return self._slots[record.domain]

    def _is_there(self, record: Record, staged: dict[tuple[int, int], int]) -> bool:
        if record.kind is not Kind.DISPLACED:
            return True
        slots = self._stage.slots[record.domain] if record.domain < len(self._stage.slots) else -1
        if slots < 0:
            return False
        try:
            found = identity_of(slots, b"%d" % record.slot)
        except FileNotFoundError:
            return False
        return found != staged.get((record.domain, record.slot))


def note_tops(vault_dir: str, tops: Sequence[Entry]) -> None:
    """Note directories, before the first attempt, of which making slots may move the mtime. Raises OSError."""
    if tops:
        vault = os.open(vault_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            changeset.write(vault, TOPS, [Record(top.path, Kind.CONTEXT, Aspect.NONE, top) for top in tops])
        finally:
            os.close(vault)


def read_tops(vault_dir: str) -> list[Record]:
    """What ``note_tops`` has noted. Raises OSError, CheckpointError."""
    vault = os.open(vault_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return changeset.read(vault, TOPS)
    except FileNotFoundError:
        return []
    finally:
        os.close(vault)


def catch_up(vault_dir: str, attempt: int, live: LiveTree) -> None:
    """Take what became of the paths since the attempt for its own doing: also what is new in its new directories.

    To be called while whoever changes them does so on its behalf. Raises OSError, CheckpointError.
    """
    if not put_in_place(vault_dir, attempt):
        return
    with opened(vault_dir, attempt, live.root_fd) as stage:
        records = {record.path: record for record in changeset.read(stage.fd, PLAN)}
        for record in list(records.values()):
            if record.kind is Kind.CONTEXT:
                continue
            entry = live.lookup(record.path)
            after = ABSENT if entry is None else fingerprint(entry, live.details(entry))
            records[record.path] = record._replace(after=after)
            if record.kind is not Kind.ABSENT or entry is None or not entry.is_dir:
                continue
            for inner in live.walk(record.path):
                if inner.path not in records:
                    after = fingerprint(inner, live.details(inner))
                    records[inner.path] = Record(inner.path, Kind.ABSENT, Aspect.ADDED, after=after)
        changeset.write(stage.fd, PLAN, records.values())


def _of_their_groups(there: Sequence[Record], records: Sequence[Record]) -> list[Record]:
    """Of an attempt that was cut off: paths that it had not got to, other names of which are displaced already.
    Those are to become links of them again.
    """
    groups = {_inode(record) for record in there if record.kind is Kind.DISPLACED} - {None}
    known = {record.path for record in there}
    return [
        record._replace(kind=Kind.METADATA, aspects=Aspect.LINKS)
        for record in records
        if record.path not in known and _inode(record) in groups
    ]


def _inode(record: Record) -> tuple[int, int] | None:
    """That of a file with several names."""
    entry = record.entry
    return (entry.dev, entry.ino) if entry is not None and entry.nlink > 1 and not entry.is_dir else None


def _in_slot(record: Record, inner: bytes) -> bytes:
    return b"%d" % record.slot + inner
