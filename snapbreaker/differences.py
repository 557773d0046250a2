"""What differs between a checkpoint and the machine as it is: for `checkpoint diff` and `rollback --dry-run`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from snapbreaker.bystanders import Bystanders
from snapbreaker.checkpoint.record import Record
from snapbreaker.checkpoint.states import State
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError
from snapbreaker.files.entry import Aspect, Change, aspect_names, sort_key
from snapbreaker.files.proof import Proof
from snapbreaker.files.tree import Tree
from snapbreaker.files.verify import describe, kind_of
from snapbreaker.goal import Goal
from snapbreaker.progress import Progress, silent
from snapbreaker.report.model import absolute
from snapbreaker.sandbox.held_run import waiting
from snapbreaker.system.kernel import kinds
from snapbreaker.system.parts import Parts
from snapbreaker.system.state import capture
from snapbreaker.system.target import Target
from snapbreaker.trees import live_tree, pending, source


@dataclass(frozen=True, slots=True)
class Changed:
    """One path; ``status`` is A added since the checkpoint, D deleted, M changed, T became something else."""

    status: str
    path: str
    aspects: tuple[str, ...]

    @classmethod
    def of(cls, root: str, change: Change) -> Changed:
        there = "T" if change.aspects & Aspect.TYPE else "M"
        status = "A" if change.old is None else "D" if change.new is None else there
        aspects = aspect_names(change.aspects & ~(Aspect.ADDED | Aspect.REMOVED))
        return cls(status, absolute(root, change.path), aspects)


class Compared(NamedTuple):
    """One path with the trees that it differs in, which are open until the next one is asked for."""

    root: str
    change: Change
    old: Tree
    live: Tree

    def text(self) -> str:
        """In what it differs, with values; what it is, where it is on one side only."""
        entry = self.change.old or self.change.new
        if (self.change.old is not None and self.change.new is not None) or entry is None:
            return describe(self.change, self.old, self.live)
        return kind_of(entry)


def goal_of(record: Record) -> Goal:
    """What a checkpoint can be compared with: its undo set once committed, else all that it recorded."""
    state = record.state
    if state is State.COMMITTED:
        return Goal(undo=True)
    if state is State.CREATING:
        raise CheckpointError(f"checkpoint {record.id} is not whole", "run `snapbreaker recover`")
    if state in (State.ROLLED_BACK, State.FAILED):
        return replace(Goal.from_dict(record.status.get("goal", {})), paths=())
    return Goal()


def differences(record: Record, goal: Goal, deep: bool = False, progress: Progress = silent) -> Iterator[Changed]:
    """What ``compared`` finds, for a list."""
    return (Changed.of(one.root, one.change) for one in compared(record, goal, deep, progress))


def compared(record: Record, goal: Goal, deep: bool = False, progress: Progress = silent) -> Iterator[Compared]:
    """By volume, in path order. ``deep``: nothing is taken for unchanged without a look at its content.

    Of a held run what it would change. What others had written during a halted run and the rollback left as it was
    is none, until it is changed again.
    """
    if record.state is State.HELD:
        yield from _waiting(record, goal, progress)
        return
    bystanders = Bystanders(record, goal.undo)
    for volume in record.meta.volumes:
        volume = replace(volume, proof=Proof.none()) if deep else volume
        with source(volume, goal.undo) as old, live_tree(volume) as live:
            changes = sorted(pending(volume, old, live, goal, progress), key=lambda change: sort_key(change.path))
            stays = bystanders.split(volume, old, live, changes).stays if record.state is State.ROLLED_BACK else ()
            for change in changes:
                if change.path in stays and not _changed_since(change, record):
                    continue
                yield Compared(volume.stored.volume.root, change, old, live)


def _waiting(record: Record, goal: Goal, progress: Progress) -> Iterator[Compared]:
    with waiting(record, goal.paths, progress) as found:
        for view, changes in found:
            for change in sorted(changes, key=lambda change: sort_key(change.path)):
                yield Compared(view.root, change, view.live, view.merged)


def _changed_since(change: Change, record: Record) -> bool:
    """Whether somebody touched it after the record came to rest."""
    return change.new is None or change.new.ctime_ns > float(record.status["time"]) * 1e9


def system_differences(record: Record, goal: Goal) -> Iterator[Changed]:
    """Packages, units, accounts, ports and kernel state that differ; of a committed run those that it changed."""
    parts = Parts(**record.meta.parts)
    if not parts or goal.paths:
        return
    try:
        target = Target.of(record.path, goal.undo)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"what was recorded of the system cannot be read: {error!r}") from error
    for change in target.differences(capture(parts)):
        if kinds.is_nobodys(change):
            continue
        status = "A" if not change.was else "D" if not change.now else "M"
        yield Changed(status, f"{change.table}: {change.name}", (change.text(),))
