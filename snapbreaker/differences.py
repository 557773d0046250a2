"""What differs between a checkpoint and the machine as it is: for `checkpoint diff` and `rollback --dry-run`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from snapbreaker.bystanders import Bystanders
from snapbreaker.checkpoint.record import Record
from snapbreaker.checkpoint.states import State
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError
from snapbreaker.files.entry import Aspect, Change
from snapbreaker.files.proof import Proof
from snapbreaker.files.tree import sort_key
from snapbreaker.goal import Goal
from snapbreaker.report.model import absolute, aspect_names
from snapbreaker.system.parts import Parts
from snapbreaker.system.state import capture
from snapbreaker.system.target import Target
from snapbreaker.trees import live_tree, pending, source


@dataclass(frozen=True, slots=True)
class Changed:
    """One path; ``sign`` is ``+`` added since the checkpoint, ``-`` removed, ``*`` changed."""

    sign: str
    path: str
    aspects: tuple[str, ...]

    @classmethod
    def of(cls, root: str, change: Change) -> Changed:
        sign = "+" if change.old is None else "-" if change.new is None else "*"
        return cls(
            sign, absolute(root, change.path), aspect_names(change.aspects & ~(Aspect.ADDED | Aspect.REMOVED))
        )


def goal_of(record: Record) -> Goal:
    """What a checkpoint can be compared with: its undo set once committed, else all that it recorded."""
    state = record.state
    if state is State.COMMITTED:
        return Goal(undo=True)
    if state is State.CREATING:
        raise CheckpointError(f"checkpoint {record.id} is not whole", "run `snapbreaker recover`")
    if state is State.ROLLED_BACK:
        return Goal.from_dict(record.status.get("goal", {}))
    return Goal()


def differences(record: Record, goal: Goal, deep: bool = False) -> Iterator[Changed]:
    """By volume, in path order. ``deep``: nothing is taken for unchanged without a look at its content.

    What others had written during a halted run and the rollback left as it was is none, until it is changed again.
    """
    bystanders = Bystanders(record, goal.undo)
    for volume in record.meta.volumes:
        volume = replace(volume, proof=Proof.none()) if deep else volume
        with source(volume, goal.undo) as old, live_tree(volume) as live:
            changes = sorted(pending(volume, old, live, goal), key=lambda change: sort_key(change.path))
            stays = bystanders.split(volume, old, live, changes).stays if record.state is State.ROLLED_BACK else ()
            for change in changes:
                if change.path in stays and not _changed_since(change, record):
                    continue
                yield Changed.of(volume.stored.volume.root, change)


def _changed_since(change: Change, record: Record) -> bool:
    """Whether somebody touched it after the record came to rest."""
    return change.new is None or change.new.ctime_ns > float(record.status["time"]) * 1e9


def system_differences(record: Record, goal: Goal) -> Iterator[Changed]:
    """Packages, units, accounts and ports that are not as recorded; of a committed run those that it changed."""
    parts = Parts(**record.meta.parts)
    if not parts or goal.paths:
        return
    try:
        target = Target.of(record.path, goal.undo)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"what was recorded of the system cannot be read: {error!r}") from error
    for change in target.differences(capture(parts)):
        sign = "+" if not change.was else "-" if not change.now else "*"
        yield Changed(sign, f"{change.table}: {change.name}", (change.text(),))
