"""Undoing a rollback: what it took away comes back, out of the slots that it was displaced into."""

from __future__ import annotations

import time

from snapbreaker.checkpoint.record import Record, VolumeRecord
from snapbreaker.checkpoint.states import State
from snapbreaker.errors import CheckpointError, SnapbreakerError
from snapbreaker.files.displaced import Displaced
from snapbreaker.files.restore import restore
from snapbreaker.files.stage import Stage, attempts, put_in_place
from snapbreaker.files.watched import Watched
from snapbreaker.goal import Goal
from snapbreaker.outcome import Outcome, VolumeOutcome
from snapbreaker.progress import Progress, silent
from snapbreaker.rollback import begin, rest, told
from snapbreaker.system.rollback import SystemRollback
from snapbreaker.trees import live_tree


def refuse(record: Record) -> None:
    """Raise CheckpointError unless ``record`` is a committed run that was rolled back as a whole."""
    goal = Goal.from_dict(record.status.get("goal", {}))
    if record.state is not State.ROLLED_BACK or not goal.undo:
        raise CheckpointError(
            f"checkpoint {record.id} is {record.state}: there is no rollback of a finished run to take back",
            "what the rollback of a halted run took away lies in the vault; `report` says where",
        )
    if record.status.get("at_boot"):
        raise CheckpointError(
            f"checkpoint {record.id} was rolled back by replacing volumes at boot: that is not taken back",
            "what was displaced is kept until the checkpoint is deleted (docs/btrfs.md)",
        )


def redo(record: Record, progress: Progress = silent) -> Outcome:
    """Bring back what the last rollback of ``record`` displaced; the record is *committed* again, or *failed*.

    Cut off in the middle, `recover` goes the other way and finishes the rollback again.
    """
    begin(record, Goal(undo=True), record.status["since"])
    outcome = Outcome()
    system = SystemRollback.of(record, undo=True, again=True)
    outcome.system = system.outcome
    system.quiesce()
    for volume in record.meta.volumes:
        mine = VolumeOutcome(volume.stored.volume.root)
        outcome.volumes.append(mine)
        try:
            _redo_volume(volume, record.status["since"], mine, outcome, system, progress)
        except (OSError, SnapbreakerError) as error:
            outcome.errors.append(told(mine.root, error))
    system.reconcile({path for each in outcome.volumes for path in each.files})
    system.verify()
    rest(record, State.COMMITTED, outcome)
    return outcome


def _redo_volume(
    volume: VolumeRecord,
    since: dict[str, int],
    mine: VolumeOutcome,
    outcome: Outcome,
    system: SystemRollback,
    progress: Progress,
) -> None:
    vault = volume.stored.vault
    first = since.get(str(volume.stored.volume.number), 1)
    with live_tree(volume) as live:
        done = [number for number in attempts(vault) if number >= first and put_in_place(vault, number)]
        for attempt in sorted(done, reverse=True):
            compare, check = Watched(live, "compare", progress), Watched(live, "verify", progress)
            with Displaced.open(vault, attempt, live) as old:
                started = time.monotonic()
                changes = list(old.changes(compare))
                if system.let_go(mine.root, changes):
                    changes = list(old.changes(compare))
                mine.changes.add(mine.root, changes)
                mine.touch(changes)
                stage = Stage(vault)
                if changes:
                    restored = restore(old, live, changes, stage, progress)
                    mine.failures += [(failure.path, failure.text) for failure in restored.failures]
                outcome.restore_seconds += time.monotonic() - started
                mine.differences = old.verify(check)
        mine.compared = True
