"""Putting files back, and proving it. From the checkpoint itself, or, after a commit, from the undo set.

Only system calls: what this works on may hold the very programs and libraries that a machine runs on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from snapbreaker import layout, mounts, order, roots, selection
from snapbreaker.bystanders import Bystanders, Split
from snapbreaker.checkpoint import vault
from snapbreaker.checkpoint.record import Record, VolumeRecord
from snapbreaker.checkpoint.states import SETTLED, State
from snapbreaker.collector import uncollected
from snapbreaker.errors import CheckpointError, RestoreError, SnapbreakerError
from snapbreaker.files.changetree import ChangeTree
from snapbreaker.files.live import LiveTree
from snapbreaker.files.restore import restore
from snapbreaker.files.room import content_of
from snapbreaker.files.stage import Stage, attempts
from snapbreaker.files.tree import Tree
from snapbreaker.files.verify import Difference, verify
from snapbreaker.files.watched import Watched
from snapbreaker.foreign.watcher import Watcher
from snapbreaker.goal import Goal
from snapbreaker.guard.guard import end as end_guard
from snapbreaker.guard.guard import is_guarded
from snapbreaker.linux.mountinfo import read_mounts
from snapbreaker.linux.process import boot_id
from snapbreaker.outcome import Outcome, VolumeOutcome
from snapbreaker.progress import Progress, silent
from snapbreaker.report.model import Changes
from snapbreaker.revert import Whole
from snapbreaker.sandbox.sandbox import is_sandboxed, sandboxed
from snapbreaker.system.rollback import SystemRollback
from snapbreaker.trees import below, compared, live_tree, pending, source

ATTEMPTS = 3  # something outside the run may write while files go back


@uncollected
def roll_back(
    record: Record,
    goal: Goal,
    progress: Progress = silent,
    errors: Sequence[str] = (),
    watcher: Watcher | None = None,
) -> Outcome:
    """Take ``record``'s volumes to ``goal``; the record ends in ``goal.rest`` or *failed*.

    ``errors`` are what already speaks against success, such as a process that could not be killed; ``watcher``
    tells what others go on writing. Failures of
    single paths are in the outcome. Raises nothing but for bugs: an error that ends the work on a volume is in
    ``Outcome.errors``.
    """
    begin(record, goal)
    outcome = Outcome(errors=list(errors))
    system = SystemRollback.of(record, goal.undo and not goal.halted, whole=not goal.paths)
    outcome.system = system.outcome
    system.quiesce()
    try:
        _undo_mounts(record, goal, outcome)
    except OSError as error:
        outcome.errors.append(f"cannot unmount {_where(error)}: {error.strerror}")
    bystanders = Bystanders(record, goal.undo, watcher)
    _let_guarded_go(record, goal, system, bystanders, progress)
    _end_guards(record)
    volumes = order.in_order(record.meta.volumes)
    for volume in volumes:
        vault.unreserve(volume.stored.vault)
        untouched = is_sandboxed(volume) and not goal.undo
        outcome.volumes.append(VolumeOutcome(volume.stored.volume.root, untouched=untouched))
    of = dict(zip([volume.stored.volume.root for volume in volumes], outcome.volumes, strict=True))
    for volume in order.modules_apart(volumes) if not goal.paths else ():
        mine = of[volume.stored.volume.root]
        with suppress(OSError, SnapbreakerError):  # it is met again, and told then
            _VolumeRollback(volume, goal, mine, outcome, system, bystanders).missing(layout.MODULES)
    for volume in volumes:
        mine = of[volume.stored.volume.root]
        try:
            _bring_root_back(volume, goal, outcome)
            _VolumeRollback(volume, goal, mine, outcome, system, bystanders).run(progress)
        except (OSError, SnapbreakerError) as error:
            mine.ended = True
            outcome.errors.append(told(mine.root, error))
    system.reconcile({path for each in outcome.volumes for path in each.files})
    record.pass_through(State.VERIFYING)
    system.verify()
    if bystanders.reason and not sandboxed(record):
        outcome.notes.append(f"what others wrote during the run is not told apart: {bystanders.reason}")
    rest(record, goal.rest, outcome)
    return outcome


@uncollected
def put_files_back(record: Record, goal: Goal, progress: Progress = silent) -> Changes:
    """Before the machine boots: put the files of every volume back that is mounted already, so that it can.

    The record stays in *restoring*: `recover` does it all again later in the boot, and proves it. Returns what was
    put back. Raises OSError, SnapbreakerError.
    """
    begin(record, goal)
    system, bystanders = SystemRollback.nothing(record), Bystanders(record, goal.undo)
    mounted = {mount.mountpoint for mount in read_mounts()}
    changes = Changes()
    for volume in order.in_order(record.meta.volumes):
        if volume.stored.volume.mountpoint in mounted:
            mine = VolumeOutcome(volume.stored.volume.root)
            _VolumeRollback(volume, goal, mine, Outcome(), system, bystanders).run(progress)
            changes.join(mine.changes)
    return changes


def put_boot_back(
    record: Record, goal: Goal, outcome: Outcome, progress: Progress = silent
) -> list[VolumeOutcome]:
    """Only what is read before the root is mounted, and the modules that belong to it.

    What ends the work on a volume is in ``outcome.errors``.
    """
    system, bystanders, found = SystemRollback.nothing(record), Bystanders(record, goal.undo), []
    for volume in order.modules_apart(record.meta.volumes):
        with suppress(OSError, SnapbreakerError):  # the volume goes back as a whole afterwards
            mine = VolumeOutcome(volume.stored.volume.root)
            _VolumeRollback(volume, goal, mine, Outcome(), system, bystanders).missing(layout.MODULES)
    for volume in filter(order.boots, order.in_order(record.meta.volumes)):
        mine = VolumeOutcome(volume.stored.volume.root)
        found.append(mine)
        try:
            _VolumeRollback(volume, goal, mine, outcome, system, bystanders).run(progress)
        except (OSError, SnapbreakerError) as error:
            outcome.errors.append(told(mine.root, error))
    return found


def _let_guarded_go(
    record: Record, goal: Goal, system: SystemRollback, bystanders: Bystanders, progress: Progress
) -> None:
    """Services that work on changed files stop while their files are still guarded: a database goes on with what a
    client that is dead had asked for, and writes it out when it is stopped, in place.
    """
    if not system.has_services:
        return
    for volume in record.meta.volumes:
        if is_guarded(volume.stored.vault):
            mine = VolumeOutcome(volume.stored.volume.root)
            with suppress(OSError, SnapbreakerError):  # it is met again, and told then
                _VolumeRollback(volume, goal, mine, Outcome(), system, bystanders).let_go(progress)


def _end_guards(record: Record) -> None:
    """What others change in place from here on stays as it is; and every file that we open would wait for an
    answer.
    """
    for volume in record.meta.volumes:
        end_guard(volume.stored.vault)


def _undo_mounts(record: Record, goal: Goal, outcome: Outcome) -> None:
    """What a halted run mounted goes. Of a run that ended long ago nobody knows who has mounted what since."""
    meta = record.meta
    volumes = [(volume.stored.volume, volume.stored.policy) for volume in meta.volumes]
    if (
        meta.kind == "run"
        and not sandboxed(record)
        and not goal.undo
        and not goal.paths
        and meta.boot == boot_id()
    ):
        undone = mounts.undo(volumes, meta.mounts)
        outcome.unmounted, outcome.missing_mounts = undone.unmounted, undone.missing
        extra, missing = undone.left, undone.taken_by_others
    else:
        extra, missing = mounts.since(volumes, meta.mounts)
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


def _bring_root_back(volume: VolumeRecord, goal: Goal, outcome: Outcome) -> None:
    with source(volume, goal.undo) as old:
        top = old.lookup(b"")
        where = volume.stored
        if note := roots.bring_back(where.volume, where.vault, top is not None and top.subvolume):
            outcome.notes.append(note)


class _VolumeRollback:
    """One volume on its way back: compare, let go, restore, compare again."""

    def __init__(
        self,
        volume: VolumeRecord,
        goal: Goal,
        mine: VolumeOutcome,
        outcome: Outcome,
        system: SystemRollback,
        bystanders: Bystanders,
    ) -> None:
        self._volume, self._goal, self._mine, self._outcome = volume, goal, mine, outcome
        self._system, self._bystanders = system, bystanders

    def let_go(self, progress: Progress) -> None:
        """Only have the services stopped that work on what has to go back."""
        with source(self._volume, self._goal.undo) as old, live_tree(self._volume) as live:
            self._system.let_go(self._mine.root, self._split(old, live, progress).back)

    def missing(self, places: Sequence[str]) -> None:
        """Only bring back what is no longer there, at and below ``places``."""
        goal = replace(self._goal, paths=tuple(places))
        with source(self._volume, self._goal.undo) as old, live_tree(self._volume) as live:
            if not below(self._volume, goal.paths):
                return
            changes = [change for change in pending(self._volume, old, live, goal) if change.new is None]
            split = self._bystanders.split(self._volume, old, live, changes)
            self._mine.changes.add(self._mine.root, split.back)
            self._prepare(old, live, split)
            self._restore(old, live, split, silent)

    def run(self, progress: Progress) -> None:
        mine = self._mine
        whole = Whole(self._volume, self._goal)
        with source(self._volume, self._goal.undo) as old, live_tree(self._volume) as live:
            for attempt in range(ATTEMPTS):
                started = time.monotonic()
                split = self._compared(old, live, progress, whole)
                if attempt == 0:
                    mine.changes.add(mine.root, split.back)
                self._prepare(old, live, split)
                if not whole.revert(split, live):
                    self._restore(old, live, split, progress)
                if whole.note and attempt == 0:
                    self._outcome.notes.append(f"{mine.root}: {whole.note}")
                self._outcome.restore_seconds += time.monotonic() - started
                started = time.monotonic()
                mine.differences = self._left(live, split, self._verified(old, live, progress))
                mine.compared = True
                mine.verify_seconds += time.monotonic() - started
                if not (mine.differences or mine.failures):
                    return

    def _compared(self, old: Tree, live: LiveTree, progress: Progress, whole: Whole) -> Split:
        """What has to go back. Services that work on any of it stop first, and may write while they do."""
        split = self._split(old, live, progress)
        stopped = self._system.let_go(self._mine.root, split.back)
        marked = whole.mark(lambda: content_of(old, split.back))
        return self._split(old, live, progress) if stopped or marked else split

    def _split(self, old: Tree, live: LiveTree, progress: Progress) -> Split:
        """What others write once files are on their way back stays in any case: it would have no end."""
        changes = pending(self._volume, old, live, self._goal, progress)
        return self._bystanders.split(self._volume, old, live, changes, keep=self._mine.compared or None)

    def _left(self, live: LiveTree, split: Split, differences: list[Difference]) -> list[Difference]:
        """Those that are neither meant to stay nor made by others meanwhile."""
        late = self._bystanders.late(live, split, differences)
        self._tell(late)
        return [one for one in differences if one.path not in split.stays | late.stays]

    def _tell(self, split: Split) -> None:
        known = {path for path, _ in self._mine.foreign}
        told = self._bystanders.told(self._mine.root, split)
        self._mine.foreign += [one for one in told if one[0] not in known]

    def _prepare(self, old: Tree, live: LiveTree, split: Split) -> None:
        """There is room for what goes back, and what is others' of it is saved."""
        if split.back and not self._goal.undo:
            backend = selection.load(self._volume.backend)
            backend.make_room(self._volume.stored, lambda: content_of(old, split.back), len(split.back))
        self._bystanders.save(self._mine.root, live, split)
        self._tell(split)
        self._mine.touch(split.back)

    def _restore(self, old: Tree, live: LiveTree, split: Split, progress: Progress) -> None:
        mine = self._mine
        if split.back:
            stage = Stage(self._volume.stored.vault)
            restored = restore(old, live, split.back, stage, progress, make_room=True)
            mine.failures = [(failure.path, failure.text) for failure in restored.failures]
            mine.displaced.append(stage.path)
            mine.deleted += restored.deleted

    def _verified(self, old: Tree, live: LiveTree, progress: Progress) -> list[Difference]:
        """Everything is compared again; what was touched, with its content."""
        now = Watched(live, "verify", progress)
        parts = below(self._volume, self._goal.paths)
        if self._goal.undo:
            assert isinstance(old, ChangeTree)
            return old.verify(now, parts)
        policy, proof = self._volume.stored.policy, self._volume.proof
        touched = self._mine.touched
        one, other = compared(old, now, live, touched)
        return [found for part in parts for found in verify(one, other, policy, proof, touched, part)]


def told(root: str, error: OSError | SnapbreakerError) -> str:
    """What ended the work on the volume at ``root``, in one line."""
    if isinstance(error, SnapbreakerError):
        return f"{root}: {error}"
    return f"{root}: {_where(error)}: {error.strerror}"


def _where(error: OSError) -> str:
    return os.fsdecode(error.filename) if error.filename else "a system call"
