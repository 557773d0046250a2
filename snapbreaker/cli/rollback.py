"""`snapbreaker rollback`"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace

import click

from snapbreaker import at_boot, preload, selection
from snapbreaker.backend import Capability
from snapbreaker.checkpoint.lock import Lock
from snapbreaker.checkpoint.owner import Owner
from snapbreaker.checkpoint.record import Record, VolumeRecord
from snapbreaker.checkpoint.states import State
from snapbreaker.cli.main import Settings
from snapbreaker.cli.options import chosen, inside, narrator_for, print_changes, told
from snapbreaker.conclude import conclude
from snapbreaker.conflicts import conflicts, refuse_conflicts
from snapbreaker.differences import differences, system_differences
from snapbreaker.errors import CheckpointError, UsageError
from snapbreaker.exits import Exit
from snapbreaker.goal import Goal
from snapbreaker.narrator import Narrator, TextNarrator
from snapbreaker.outcome import Outcome
from snapbreaker.redo import redo, refuse
from snapbreaker.report.wording import path_text
from snapbreaker.signals import deferred
from snapbreaker.story import Story
from snapbreaker.trees import source

EXAMPLES = """\b
Examples:
  snapbreaker rollback --last --dry-run
  snapbreaker rollback 42 --path /srv/app/config
"""


@click.command(epilog=EXAMPLES)
@click.argument("id", required=False)
@click.option("--last", is_flag=True, help="The newest checkpoint.")
@click.option("--path", "paths", multiple=True, metavar="P", help="Only this path and what is below it.")
@click.option(
    "--whole", is_flag=True, help="Back to the instant of the checkpoint, not only what the run changed."
)
@click.option("--redo", "again", is_flag=True, help="Take the rollback of a finished run back.")
@click.option("--at-boot", "at_next_boot", is_flag=True, help="Replace whole volumes at the next boot; exit 5.")
@click.option(
    "--soft-reboot",
    "soft",
    is_flag=True,
    help="With --at-boot: have `systemctl soft-reboot` be enough (systemd 254).",
)
@click.option("--call-off", is_flag=True, help="Leave everything as it is at the next boot after all.")
@click.option("--dry-run", is_flag=True, help="Only say what would be put back.")
@click.option("--force", is_flag=True, help="Also where paths changed again since the run.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Events on standard output, one JSON object a line.")
@click.pass_obj
def rollback(
    settings: Settings,
    id: str | None,
    last: bool,
    paths: tuple[str, ...],
    whole: bool,
    again: bool,
    at_next_boot: bool,
    soft: bool,
    call_off: bool,
    dry_run: bool,
    force: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Undo a run, or go back to a checkpoint made by hand.

    Of a committed run the paths that it changed go back. A path that has changed again since is a conflict:
    listed, and nothing is touched without --force (exit 4). What a rollback takes away is kept until pruned.
    """
    record = chosen(settings.store, id, last, "roll back")
    narrator = narrator_for(as_json, settings.verbosity)
    if again and (paths or whole or dry_run or force):
        raise UsageError("--redo takes back all of the last rollback", "leave the other options out")
    if (at_next_boot or call_off) and (paths or dry_run or again or (at_next_boot and call_off)):
        raise UsageError("what happens at boot concerns whole volumes", "leave the other options out")
    if soft and not at_next_boot:
        raise UsageError("--soft-reboot says how --at-boot is done", "give --at-boot, too")
    if again:
        return told(narrator, lambda: _redo(record, narrator))
    if call_off:
        return told(narrator, lambda: _call_off(record))
    wanted = tuple(inside(record, path) for path in paths)
    # What is replaced goes back as a whole in any case; the other volumes may have kept only what the run changed.
    whole = whole or (at_next_boot and not _partly_kept(record))
    goal = _goal(record, whole, wanted)
    if dry_run:
        return _preview(record, goal, as_json, TextNarrator(-1 if as_json else settings.verbosity))
    if sys.stdin.isatty() and not (yes or as_json):
        click.confirm(f"roll back {record.id} ({' '.join(record.meta.command) or 'made by hand'})?", abort=True)

    def work() -> int:
        preload.load()
        with Lock(f"rollback {record.id}"):
            settings.store.refuse_pending()
            goal = _goal(record, whole, wanted)  # again: another rollback may just have ended
            if goal.undo and not force:
                refuse_conflicts(record, wanted, narrator.progress)
            progress = narrator.progress
            if at_next_boot:
                return _roll_back(record, narrator, lambda: at_boot.schedule(record, goal, progress, soft))
            return _roll_back(record, narrator, lambda: at_boot.take_back(record, goal, progress))

    return told(narrator, work)


def _roll_back(record: Record, narrator: Narrator, back: Callable[[], Outcome]) -> int:
    with deferred():
        record.adopt([Owner.of(os.getpid())])
        story = Story(record, narrator, verb="rollback", invocation=["snapbreaker", *sys.argv[1:]])
        story.recall(record.status)
        story.outcome = back()
        return conclude(record, story)


def _call_off(record: Record) -> int:
    with Lock(f"rollback --call-off {record.id}"), deferred():
        at_boot.call_off(record)
    click.echo(f"called off: nothing of {record.id} happens at the next boot")
    return Exit.OK


def _redo(record: Record, narrator: Narrator) -> int:
    preload.load()
    with Lock(f"rollback --redo {record.id}"), deferred():
        refuse(record)
        record.adopt([Owner.of(os.getpid())])
        story = Story(record, narrator, verb="rollback", invocation=["snapbreaker", *sys.argv[1:]])
        story.outcome = redo(record, narrator.progress)
        return conclude(record, story)


def _goal(record: Record, whole: bool, paths: tuple[str, ...]) -> Goal:
    """Where this checkpoint can go back to. Raises CheckpointError where it cannot."""
    state, by_hand = record.state, record.meta.kind == "manual"
    if state is State.HELD and (paths or whole):
        raise CheckpointError(f"checkpoint {record.id} is held: nothing of it is on the machine", "drop all of it")
    if state is State.HELD:
        return Goal()
    if record.owned() or record.unfinished():
        raise CheckpointError(
            f"checkpoint {record.id} is {state}", "wait for it to end, or run `snapbreaker recover`"
        )
    if by_hand:
        return Goal(undo=False, paths=paths, rest=State.READY)
    if state is State.FAILED:
        return _again(record, Goal.from_dict(record.status.get("goal", {})), paths)
    if state is State.ROLLED_BACK and paths and not Goal.from_dict(record.status.get("goal", {})).undo:
        for volume in record.meta.volumes:
            source(volume, undo=False).close()  # refused where nothing is kept of a run that was undone
        return Goal(undo=False, paths=paths)
    if state is not State.COMMITTED:
        raise CheckpointError(f"checkpoint {record.id} is {state}: there is nothing to undo")
    if not whole:
        return Goal(undo=True, paths=paths, rest=State.COMMITTED if paths else State.ROLLED_BACK)
    for volume in _partly_kept(record):
        raise CheckpointError(
            f"of {volume.stored.volume.root} only what the run changed is kept ({volume.backend})",
            "leave --whole out",
        )
    return Goal(undo=False, paths=paths)


def _partly_kept(record: Record) -> list[VolumeRecord]:
    """Of which only what the run changed is kept after a commit."""
    volumes = record.meta.volumes
    return [one for one in volumes if Capability.WHOLE not in selection.load(one.backend).capabilities]


def _again(record: Record, before: Goal, paths: tuple[str, ...]) -> Goal:
    """The goal of a rollback that failed, once more."""
    if before.undo:
        return replace(before, paths=paths, rest=State.COMMITTED if paths else State.ROLLED_BACK)
    if paths:
        raise CheckpointError(
            f"the rollback of checkpoint {record.id} failed: a part of it cannot be proved alone",
            "leave --path out: what is as it was stays as it is",
        )
    return before


def _preview(record: Record, goal: Goal, as_json: bool, narrator: TextNarrator) -> int:
    changed = [*differences(record, goal, progress=narrator.progress), *system_differences(record, goal)]
    found = conflicts(record, goal.paths, narrator.progress) if goal.undo else []
    narrator.wipe()
    print_changes(changed, as_json)
    if found:
        for path in found:
            click.echo(f"conflict: {path_text(os.fsdecode(path))} changed again since the run", err=True)
        return Exit.NOT_STARTED
    return Exit.OK
