"""Putting files back, and proving it. From the checkpoint itself, or, after a commit, from the undo set.

Only system calls: what this works on may hold the very programs and libraries that a machine runs on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import field

from snapbreaker import mounts, paths, roots, selection
from snapbreaker.checkpoint import vault
from snapbreaker.checkpoint.record import Record, VolumeRecord
from snapbreaker.checkpoint.states import SETTLED, State
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError, Conflict, RestoreError, SnapbreakerError
from snapbreaker.files.diff import diff
from snapbreaker.files.entry import Change
from snapbreaker.files.live import LiveTree
from snapbreaker.files.restore import restore
from snapbreaker.files.stage import Stage, attempts
from snapbreaker.files.tree import Tree, sort_key
from snapbreaker.files.undo import UndoSet
from snapbreaker.files.verify import Difference, verify
from snapbreaker.progress import Progress, silent
from snapbreaker.report.model import Changes

ATTEMPTS = 3  # something outside the run may write while files go back


@dataclass(frozen=True, slots=True)
class Goal:
    """What to go back to. Kept in the state file, so that `recover` continues in the same direction.

    ``undo``: only what the run changed, out of the undo set; else the checkpoint itself.
    ``paths``: absolute; empty means everything.
    """

    undo: bool = False
    paths: tuple[str, ...] = ()
    rest: State = State.ROLLED_BACK  # the state in which the checkpoint rests afterwards

    def as_dict(self) -> dict[str, object]:
        return {"undo": self.undo, "paths": list(self.paths), "rest": str(self.rest)}

    @classmethod
    def from_dict(cls, data: dict[str, object]) -> Goal:
        paths = data.get("paths")
        return cls(
            bool(data.get("undo")),
            tuple(paths) if isinstance(paths, list) else (),
            State(str(data.get("rest", State.ROLLED_BACK))),
        )


@dataclass(slots=True)
class VolumeOutcome:
    """How it went on one volume.

    ``failures`` are (path, why), ``displaced`` the directories that keep what was taken away, ``deleted`` what
    the run had added and could not be kept, since the filesystem was full.
    """

    root: str
    changes: Changes = field(default_factory=Changes)
    failures: list[tuple[bytes, str]] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    displaced: list[str] = field(default_factory=list)
    deleted: list[bytes] = field(default_factory=list)
    compared: bool = False
    verify_seconds: float = 0.0


@dataclass(slots=True)
class Outcome:
    """How a rollback went: verified means that everything was compared again and nothing differs."""

    volumes: list[VolumeOutcome] = field(default_factory=list)
    unmounted: list[str] = field(default_factory=list)
    missing_mounts: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    restore_seconds: float = 0.0
    started: float = field(default_factory=time.time)

    @property
    def verified(self) -> bool:
        spoiled = any(volume.failures or volume.differences for volume in self.volumes)
        compared = all(volume.compared for volume in self.volumes)
        return compared and not (spoiled or self.errors or self.missing_mounts)


def roll_back(record: Record, goal: Goal, progress: Progress = silent, errors: Sequence[str] = ()) -> Outcome:
    """Take ``record``'s volumes to ``goal``; the record ends in ``goal.rest`` or *failed*.

    ``errors`` are what already speaks against success, such as a process that could not be killed. Failures of
    single paths are in the outcome. Raises nothing but for bugs: an error that ends the work on a volume is in
    ``Outcome.errors``.
    """
    begin(record, goal)
    outcome = Outcome(errors=list(errors))
    meta = record.meta
    try:
        _undo_mounts(record, goal, outcome)
    except OSError as error:
        outcome.errors.append(f"cannot unmount {_where(error)}: {error.strerror}")
    for volume in meta.volumes:
        vault.unreserve(volume.stored.vault)
        mine = VolumeOutcome(volume.stored.volume.root)
        outcome.volumes.append(mine)
        try:
            _roll_back_volume(record, volume, goal, mine, outcome, progress)
        except (OSError, SnapbreakerError) as error:
            outcome.errors.append(told(mine.root, error))
    rest(record, goal.rest, outcome)
    return outcome


def _undo_mounts(record: Record, goal: Goal, outcome: Outcome) -> None:
    """What a halted run mounted goes. Of a run that ended long ago nobody knows who has mounted what since."""
    meta = record.meta
    scopes = [volume.stored.volume.root for volume in meta.volumes]
    if meta.kind == "run" and not goal.undo:
        outcome.unmounted, outcome.missing_mounts = mounts.undo(scopes, meta.mounts)
        return
    extra, missing = mounts.since(scopes, meta.mounts)
    outcome.notes += [f"left mounted: {point}, which was not when the checkpoint was made" for point in extra]
    outcome.notes += [f"no longer mounted: {point}" for point in missing]


def begin(record: Record, goal: Goal, since: dict[str, int] | None = None) -> None:
    """Enter *restoring*. Out of a state of rest that must be on disk first, or a crash would leave a mixture.

    Raises CheckpointError: then nothing was changed.
    """
    facts = {"goal": goal.as_dict(), "since": _since(record) if since is None else since}
    if record.state not in SETTLED:
        record.pass_through(State.RESTORING, **facts)
        return
    try:
        record.enter(State.RESTORING, **facts)
    except OSError as error:
        raise CheckpointError(
            f"the state of checkpoint {record.id} cannot be noted in {record.path}: {error.strerror}",
            "make space there, then try again",
        ) from error


def rest(record: Record, state: State, outcome: Outcome) -> None:
    """Enter ``state`` when ``outcome`` is verified, else *failed*. Raises RestoreError when that cannot be noted:
    the record is unfinished then, and `recover` repeats the work.
    """
    record.pass_through(State.VERIFYING)
    try:
        record.enter(state if outcome.verified else State.FAILED)
    except OSError as error:
        how = "everything was put back and compared" if outcome.verified else "not everything was put back"
        raise RestoreError(
            f"{how}, but that cannot be noted in {record.path}: {error.strerror}",
            "make space there, then run `snapbreaker recover`",
        ) from error


def _since(record: Record) -> dict[str, int]:
    """By volume, the number of the first restore of this rollback; one that is resumed keeps what it noted."""
    status = record.status
    if State(status["state"]) in (State.RESTORING, State.VERIFYING) and "since" in status:
        noted: dict[str, int] = status["since"]
        return noted
    vaults = {str(volume.stored.volume.number): volume.stored.vault for volume in record.meta.volumes}
    return {number: max(attempts(path), default=0) + 1 for number, path in vaults.items() if os.path.isdir(path)}


def _roll_back_volume(
    record: Record, volume: VolumeRecord, goal: Goal, mine: VolumeOutcome, outcome: Outcome, progress: Progress
) -> None:
    with source(volume, goal.undo) as old:
        top = old.lookup(b"")
        where = volume.stored
        if note := roots.bring_back(where.volume, where.vault, top is not None and top.subvolume):
            outcome.notes.append(note)
    with source(volume, goal.undo) as old, live_tree(volume) as live:
        touched: set[bytes] = set()
        for attempt in range(ATTEMPTS):
            started = time.monotonic()
            changes = list(pending(volume, old, live, goal))
            if attempt == 0:
                mine.changes.add(mine.root, changes)
            touched.update(change.path for change in changes)
            if changes:
                stage = Stage(volume.stored.vault)
                restored = restore(old, live, changes, stage, progress, make_room=True)
                mine.failures = [(failure.path, failure.text) for failure in restored.failures]
                mine.displaced.append(stage.path)
                mine.deleted += restored.deleted
            outcome.restore_seconds += time.monotonic() - started
            started = time.monotonic()
            mine.differences = _verify(volume, old, live, goal, touched)
            mine.compared = True
            mine.verify_seconds += time.monotonic() - started
            if not (mine.differences or mine.failures):
                return


def _verify(volume: VolumeRecord, old: Tree, live: LiveTree, goal: Goal, touched: set[bytes]) -> list[Difference]:
    """Everything is compared again; what was touched, with its content."""
    if goal.undo:
        assert isinstance(old, UndoSet)
        return old.verify(live, below(volume, goal.paths))
    found: list[Difference] = []
    for part in below(volume, goal.paths):
        found += verify(old, live, volume.stored.policy, volume.proof, touched, part)
    return found


def pending(volume: VolumeRecord, old: Tree, live: LiveTree, goal: Goal) -> Iterable[Change]:
    """What differs between the live tree and the goal."""
    for part in below(volume, goal.paths):
        if isinstance(old, UndoSet):
            yield from old.changes(live, part)
        else:
            yield from diff(old, live, volume.stored.policy, volume.proof, part)


def source(volume: VolumeRecord, undo: bool) -> Tree:
    """The files to go back to: the checkpoint's view, or the undo set. Raises RestoreError without its vault."""
    _refuse_without_vault(volume)
    if undo:
        return UndoSet.open(volume.stored.record, volume.stored.vault)
    return selection.load(volume.backend).open(volume.stored)


def live_tree(volume: VolumeRecord) -> LiveTree:
    """The volume as it is now. Raises RestoreError when its filesystem is no longer mounted there."""
    stored = volume.stored
    _refuse_without_vault(volume)
    root = stored.volume.root
    skip = [os.fsencode(paths.relative(point, root)) for point in stored.volume.skip]
    with roots.opened(stored.volume) as fd:
        return LiveTree(fd, stored.policy, skip=skip)


def _refuse_without_vault(volume: VolumeRecord) -> None:
    stored = volume.stored
    if not os.path.isdir(stored.vault):
        raise RestoreError(
            f"the vault {stored.vault} is not there", f"is the filesystem of {stored.volume.root} still mounted?"
        )


def below(volume: VolumeRecord, wanted: Sequence[str]) -> list[bytes]:
    """``wanted`` relative to the volume's root; those of other volumes left out. None: the whole volume."""
    root = volume.stored.volume.root
    if not wanted or any(paths.is_below(root, path) for path in wanted):
        return [b""]
    found = [os.fsencode(paths.relative(path, root)) for path in wanted if paths.is_below(path, root)]
    return sorted(found, key=sort_key)


def conflicts(record: Record, only: Sequence[str] = ()) -> list[bytes]:
    """Absolute paths of the undo set that changed again since the commit."""
    found: list[bytes] = []
    for volume in record.meta.volumes:
        root = os.fsencode(volume.stored.volume.root.rstrip("/"))
        with source(volume, undo=True) as undo, live_tree(volume) as live:
            assert isinstance(undo, UndoSet)
            wanted = below(volume, only)
            found += [root + b"/" + path for path in undo.conflicts(live) if _covered(path, wanted)]
    return found


def refuse_conflicts(record: Record, only: Sequence[str] = ()) -> None:
    """Raise Conflict when undoing the run would lose what came after it."""
    if found := conflicts(record, only):
        raise Conflict(
            f"{len(found)} path{'s' if len(found) > 1 else ''} changed again since that run",
            found,
            "look at them; --force undoes them all the same (what it displaces is kept until pruned)",
        )


def _covered(path: bytes, wanted: Sequence[bytes]) -> bool:
    return any(not part or path == part or path.startswith(part + b"/") for part in wanted)


def told(root: str, error: OSError | SnapbreakerError) -> str:
    """What ended the work on the volume at ``root``, in one line."""
    if isinstance(error, SnapbreakerError):
        return f"{root}: {error}"
    return f"{root}: {_where(error)}: {error.strerror}"


def _where(error: OSError) -> str:
    return os.fsdecode(error.filename) if error.filename else "a system call"
