"""A run that was left in its sandbox (`run --hold`): what it would change, and how that comes to the machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from snapbreaker.checkpoint.owner import Owner
from snapbreaker.checkpoint.record import Record
from snapbreaker.checkpoint.states import State
from snapbreaker.commit import commit
from snapbreaker.conclude import conclude
from snapbreaker.errors import CheckpointError, SnapbreakerError
from snapbreaker.files.entry import Change
from snapbreaker.goal import Goal
from snapbreaker.issue import Issue
from snapbreaker.narrator import Narrator
from snapbreaker.progress import Progress, silent
from snapbreaker.rollback import roll_back
from snapbreaker.sandbox import keeper
from snapbreaker.sandbox.apply import View, forward
from snapbreaker.sandbox.bring_over import bring_over
from snapbreaker.sandbox.locks import Locks
from snapbreaker.sandbox.sandbox import Sandbox, boxed_volumes
from snapbreaker.sandbox.upper import Uppers
from snapbreaker.signals import deferred
from snapbreaker.story import Story
from snapbreaker.system.parts import Parts
from snapbreaker.system.state import HELD, capture
from snapbreaker.trees import below


def hold(record: Record, sandbox: Sandbox, story: Story) -> int:
    """End a run with its change still in the sandbox. Raises OSError, SnapbreakerError: it must be rolled back."""
    for view, changes in _views(record, sandbox.uppers, (), story.narrator.progress):
        story.waiting.add(view.root, changes)
    if record.meta.parts:  # what the kernel is told goes past a sandbox
        capture(Parts(**record.meta.parts)).save(record.path / HELD)
    noted = keeper.start(sandbox.uppers, lambda noted: record.note(sandbox=noted))
    try:
        record.enter(State.HELD)
    except BaseException:
        keeper.kill(noted)
        raise
    return conclude(record, story)


@contextmanager
def waiting(
    record: Record, paths: Sequence[str], progress: Progress = silent
) -> Iterator[Iterator[tuple[View, list[Change]]]]:
    """What a held run would change, at and below ``paths``, of each volume. Raises CheckpointError: it is gone."""
    uppers = keeper.opened(record)
    try:
        yield _views(record, uppers, paths, progress)
    finally:
        keeper.close(uppers.fds)


def _views(
    record: Record, uppers: Uppers, paths: Sequence[str], progress: Progress
) -> Iterator[tuple[View, list[Change]]]:
    for volume in record.meta.volumes:
        with ExitStack() as stack:
            view = View(volume, uppers, stack)
            parts = below(volume, paths)
            changes = [forward(change) for change in view.changes(progress)]
            yield view, [change for change in changes if _within(change.path, parts)]


def _within(path: bytes, parts: Sequence[bytes]) -> bool:
    return any(not part or path == part or path.startswith(part + b"/") for part in parts)


def confirm(record: Record, narrator: Narrator) -> int:
    """Bring what is held to the machine; the exit code. The caller holds the lock and has everything loaded.

    Raises CheckpointError where nothing was changed, and it is held still: others have changed the same files.
    """
    locks = Locks.take(boxed_volumes(record))
    fds: dict[int, int] = {}
    try:
        uppers = keeper.opened(record)
        fds = dict(uppers.fds)
        with deferred():
            record.adopt([Owner.of(os.getpid())])
            story = Story(record, narrator, verb="confirm", invocation=["snapbreaker", *sys.argv[1:]])
            how = bring_over(record, uppers, locks, story, narrator.progress)
            done = how if isinstance(how, Issue) else commit(record, None, narrator.progress, how)
            locks.close()
            if isinstance(done, Issue):
                _take_back(record, story, done)
            else:
                story.committed = done
            return conclude(record, story)
    finally:
        locks.close()
        keeper.close(fds)


def _take_back(record: Record, story: Story, issue: Issue) -> None:
    if record.state is State.HELD:
        raise CheckpointError(issue.reason, f"nothing was changed; rollback {record.id} drops it")
    story.issue = issue
    record.pass_through(State.TRIPPED, issue=issue.as_dict(), **story.facts())
    story.narrator.tripped(record, story)
    goal = Goal.from_dict(record.status["goal"])
    story.outcome = roll_back(record, goal, story.narrator.progress)


def held_issue(error: OSError | SnapbreakerError) -> str:
    """Why a change could not be held, in words."""
    return error.message if isinstance(error, SnapbreakerError) else f"{error.filename}: {error.strerror}"
