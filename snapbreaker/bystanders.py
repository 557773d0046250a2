"""Changes that are not the run's: what others wrote meanwhile, and logs; what stays, goes back, is saved.

A *foreign write* was made during the run by a process that is neither of the run nor of a unit that it started. It
goes back with the rest, saved first, or stays (``--foreign keep``). Of logs (keep-content) growth stays, and so do
those that others made or rotated; what the run itself made there moves into the record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field

from snapbreaker.checkpoint.record import Record, VolumeRecord
from snapbreaker.dataclass import dataclass
from snapbreaker.files.content import beginning
from snapbreaker.files.entry import Aspect, Change, Entry
from snapbreaker.files.live import LiveTree
from snapbreaker.files.policy import PathClass
from snapbreaker.files.tree import Tree
from snapbreaker.files.verify import Difference
from snapbreaker.foreign.facts import Origin
from snapbreaker.foreign.log import ForeignWrites
from snapbreaker.foreign.log import read as read_writes
from snapbreaker.foreign.watcher import Watcher
from snapbreaker.keepsakes import Keepsakes
from snapbreaker.report.model import absolute
from snapbreaker.system.units import may_be_let_go
from snapbreaker.writers import Inode

KEEP, RESTORE = "keep", "restore"
_BEGINNING = 4096  # bytes that tell one log from another
_CONTENT = Aspect.ADDED | Aspect.CONTENT | Aspect.TYPE | Aspect.SPARSE


@dataclass(slots=True)
class Split:
    """The changes of one volume: ``back`` go back, ``stays`` (relative paths) do not, ``foreign`` were others'.

    Of ``back``, ``shared`` are files that others wrote and the run too, as far as is known; ``logs`` are what
    the run made where only growth is kept.
    """

    back: list[Change] = field(default_factory=list)
    stays: set[bytes] = field(default_factory=set)
    foreign: list[tuple[Change, Origin]] = field(default_factory=list)
    shared: list[tuple[Change, Origin]] = field(default_factory=list)
    logs: list[Change] = field(default_factory=list)


class Bystanders:
    """What others did during the run of ``record``; with ``undo`` (a committed run) that is settled already.

    ``watcher`` is at work until files are back: what others write meanwhile is told apart, too.
    """

    def __init__(self, record: Record, undo: bool, watcher: Watcher | None = None) -> None:
        self._record, self._watcher = record, watcher
        self._keep = record.meta.foreign == KEEP
        self._watched = record.meta.kind == "run" and not undo
        self._undo = undo
        self._writes = ForeignWrites()
        self.keepsakes = Keepsakes(record.path / "saved")
        self._catch_up()

    @property
    def reason(self) -> str:
        """Why foreign writes are not known, or not all; empty when they are."""
        return self._writes.reason

    def split(
        self,
        volume: VolumeRecord,
        old: Tree,
        live: LiveTree,
        changes: Iterable[Change],
        keep: bool | None = None,
    ) -> Split:
        """Sort out ``changes``, which are found now; ``keep`` overrides what the run was told of foreign ones."""
        keep = self._keep if keep is None else keep
        split, rotated = Split(), _Rotated(volume, old, live)
        waiting: list[Change] = []
        changes = list(changes)
        self._catch_up()  # whoever made one of them is known by now
        for change in changes:
            origin = self._origin(change, self._writes.foreign_only)
            if self._is_log(volume, change):
                if not self._undo and (origin or rotated.knows(change)):
                    split.stays.add(change.path)
                    continue
                split.logs.append(change)
            elif origin is not None:
                split.foreign.append((change, origin))
                if keep or _must_go_on(origin):
                    split.stays.add(change.path)
                    continue
            elif (origin := self._origin(change, self._writes.shared)) is not None:
                split.shared.append((change, origin))
            waiting.append(change)
        above = {directory for path in split.stays for directory in _above(path)}
        for change in waiting:
            if change.old is None and change.path in above:
                split.stays.add(change.path)  # a new directory that holds what stays
            else:
                split.back.append(change)
        return split

    def late(self, live: LiveTree, before: Split, differences: Iterable[Difference]) -> Split:
        """Which of ``differences``, found after files went back, others have made since: they stay as they are.

        So do the times of directories in which these, or what stayed ``before``, lie.
        """
        split, late = Split(), [one for one in differences if one.path not in before.stays]
        self._catch_up()
        for found in late:
            entry = live.lookup(found.path)
            if entry is not None:
                change = Change(found.path, None, entry, found.aspects)
                if (origin := self._origin(change, self._writes.foreign_only)) is not None:
                    split.foreign.append((change, origin))
                    split.stays.add(found.path)
        theirs = split.stays | before.stays
        holding = {path.rpartition(b"/")[0] for path in theirs}
        above = {directory for path in theirs for directory in _above(path)}
        for found in late:
            added, touched = found.aspects == Aspect.ADDED, found.aspects == Aspect.MTIME
            if (added and found.path in above) or (touched and found.path in holding):
                split.stays.add(found.path)
        return split

    def save(self, root: str, live: LiveTree, split: Split) -> None:
        """Put what goes back and is not the run's, and its logs, into the record. Nothing of it is lost otherwise:
        it is displaced, as everything, but under a number instead of its name.
        """
        going = {change.path for change in split.back}
        for change in [*(one for one, _ in (*split.foreign, *split.shared)), *split.logs]:
            if change.path in going:
                self.keepsakes.save(root, live, change)

    def told(self, root: str, split: Split, committed: bool = False) -> list[tuple[str, str]]:
        """The foreign changes for the report: (absolute path, what was done)."""
        found = []
        for change, origin in split.foreign:
            path = absolute(root, change.path)
            what = "stays" if change.path in split.stays else self.keepsakes.where(path)
            found.append((path, f"written by {_who(origin)} meanwhile; {what}"))
        for change, origin in split.shared:
            path = absolute(root, change.path)
            what = "a rollback undoes both" if committed else self.keepsakes.where(path)
            found.append((path, f"written by {_who(origin)} meanwhile, and by the run too; {what}"))
        return found

    def _catch_up(self) -> None:
        if not self._watched:
            return
        if self._watcher is not None and self._watcher.catch_up():
            self._writes = read_writes(self._record.path, wait=0)
        elif not self._writes.foreign_only:
            self._writes = read_writes(self._record.path)

    def _origin(self, change: Change, known: Mapping[Inode, Origin]) -> Origin | None:
        new = change.new
        if new is None or not new.is_file or not change.aspects & _CONTENT:
            return None
        return known.get(Inode(new.dev, new.ino))

    def _is_log(self, volume: VolumeRecord, change: Change) -> bool:
        if change.old is not None or change.new is None or change.new.is_dir:
            return False
        return volume.stored.policy.of(change.path) is PathClass.KEEP_CONTENT


class _Rotated:
    """Log files that were there before under another name: renaming one is no change of the run's."""

    def __init__(self, volume: VolumeRecord, old: Tree, live: LiveTree) -> None:
        classes = volume.stored.policy.classes
        self._prefixes = [path for path, path_class in classes if path_class is PathClass.KEEP_CONTENT]
        self._old, self._live = old, live
        self._before: dict[int, Entry] | None = None

    def knows(self, change: Change) -> bool:
        """By inode, and since its number may be another file's now, by how it begins: logs only grow."""
        if self._before is None:
            entries = (entry for prefix in self._prefixes for entry in self._old.walk(prefix))
            self._before = {entry.ino: entry for entry in entries if entry.is_file and entry.size}
        before = self._before.get(change.new.ino) if change.new is not None else None
        if before is None or change.new is None or change.new.size < before.size:
            return False
        length = min(before.size, _BEGINNING)
        try:
            return beginning(self._old, before, length) == beginning(self._live, change.new, length)
        except OSError:  # it is going on
            return False


def _must_go_on(origin: Origin) -> bool:
    """Whether its writer has it open and cannot be stopped: what it writes next would go nowhere (DHCP leases)."""
    return origin.how == "open" and origin.unit.endswith(".service") and not may_be_let_go(origin.unit)


def _who(origin: Origin) -> str:
    where = f", {origin.unit}" if origin.unit else ""
    return f"{origin.comm} (pid {origin.pid}{where})"


def _above(path: bytes) -> Iterable[bytes]:
    while path:
        path = path.rpartition(b"/")[0]
        yield path
