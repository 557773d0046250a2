"""Killed, out of space or on a broken disk at each step of commit and rollback, with the real backends.

Afterwards, and after `recover`, there is the tree of the checkpoint, or that of the command when it was committed:
never a mixture, and nothing that the command had made is gone. An ordinary test run takes some of the steps;
``SNAPBREAKER_SOAK=100`` all of them. (``test_crash_create`` is of what comes before.)
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from snapbreaker.checkpoint.states import State
from snapbreaker.commit import Committed
from snapbreaker.errors import SnapbreakerError
from snapbreaker.goal import Goal
from snapbreaker.outcome import Outcome
from snapbreaker.rollback import roll_back
from tests.fs.ground import (
    FAILED,
    ISSUE,
    KILLED,
    UNVERIFIED,
    Ground,
    Work,
    die,
    failing,
    in_small_pieces,
    that_can_fail,
)
from tests.lab.loopfs import LoopFilesystem
from tests.lab.steps import Step, Steps, counted

ERRORS = pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])


@pytest.fixture
def ground(filesystem: LoopFilesystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    in_small_pieces(monkeypatch)
    return Ground(filesystem, tmp_path)


# Commit.


def committing(ground: Ground) -> Work:
    def work(steps: Steps) -> int:
        ground.now.begin()
        ground.change()
        with counted(steps):
            well = isinstance(ground.now.commit(), Committed)
        if well:
            return 0
        return ISSUE if ground.now.halt().verified else UNVERIFIED

    return work


def test_killed_in_commit(ground: Ground) -> None:
    """A process that only helped does not take the run with it."""
    ground.new()
    for code in ground.attempts(die, committing(ground)):
        assert code in (0, ISSUE, KILLED)
        ground.changed()
        if code != ISSUE:
            ground.is_after()
        assert ground.now.recover() == 0
        record = ground.now.found()
        assert record is not None
        if record.state is State.COMMITTED:
            ground.is_after()
            assert ground.now.undo().verified
        else:
            assert record.state is State.ROLLED_BACK
            assert code in (ISSUE, KILLED)
        ground.is_before()
        ground.nothing_is_lost()
        ground.now.discard()
        ground.nothing_is_left()
        ground.new()


@ERRORS
def test_error_in_commit(ground: Ground, code: int) -> None:
    """A change that cannot be undone does not stay."""
    ground.new()
    for ended in ground.attempts(failing(code), committing(ground), that_can_fail):
        assert ended in (0, ISSUE)
        ground.changed()
        record = ground.now.found()
        assert record is not None
        assert record.state is (State.COMMITTED if ended == 0 else State.ROLLED_BACK)
        if ended == 0:
            ground.is_after()
            assert ground.now.undo().verified
        ground.is_before()
        ground.now.discard()
        ground.nothing_is_left()
        ground.new()


# Rollback: of a halted run, and of a committed one.


def rolled_back(how: Callable[[], Outcome]) -> int:
    try:
        return 0 if how().verified else UNVERIFIED
    except SnapbreakerError:  # its state could not be noted
        return FAILED


def halting(ground: Ground) -> Work:
    def work(steps: Steps) -> int:
        ground.now.begin()
        ground.change()
        with counted(steps):
            return rolled_back(ground.now.halt)

    return work


def undoing(ground: Ground) -> Work:
    def work(steps: Steps) -> int:
        ground.now.begin()
        ground.change()
        ground.now.commit()
        with counted(steps):
            return rolled_back(ground.now.undo)

    return work


ROLLBACKS = pytest.mark.parametrize(
    ("rollback", "goal"), [(halting, Goal()), (undoing, Goal(undo=True))], ids=["halted", "committed"]
)


def ends_well(ground: Ground, goal: Goal) -> None:
    """The next rollback, where this one had not begun or has said that it failed, else `recover`."""
    record = ground.now.found()
    assert record is not None
    if record.state in (State.COMMITTED, State.FAILED):
        again = roll_back(record, goal)
        assert again.verified, [(one.failures, one.differences) for one in again.volumes]
    assert ground.now.recover() == 0
    assert record.state is State.ROLLED_BACK
    ground.is_before()
    ground.nothing_is_lost()
    ground.now.discard()
    ground.nothing_is_left()


@ROLLBACKS
def test_killed_in_rollback(ground: Ground, rollback: Callable[[Ground], Work], goal: Goal) -> None:
    ground.new()
    for code in ground.attempts(die, rollback(ground)):
        assert code in (0, KILLED)  # the part of a process that helped and died is done without it
        ground.changed()
        ground.nothing_is_lost()
        ends_well(ground, goal)
        ground.new()


def test_killed_when_a_file_was_touched_for_its_return(ext4: LoopFilesystem, tmp_path: Path) -> None:
    """A link or a rename moves the ctime of a file whose mtime the command had changed: what it holds is known
    from before.
    """
    ground = Ground(ext4, tmp_path)
    ground.new()

    def after_links(trail: Sequence[Step]) -> Sequence[Step]:
        return [after for step, after in itertools.pairwise(trail) if step.name == "link"]

    for code in ground.attempts(die, halting(ground), after_links):
        assert code in (0, KILLED)
        assert ground.now.recover() == 0
        ground.is_before()
        ground.now.found()
        ground.now.discard()
        ground.new()


@ERRORS
@ROLLBACKS
def test_error_in_rollback(ground: Ground, rollback: Callable[[Ground], Work], goal: Goal, code: int) -> None:
    """What it says of its end is true; and the next one ends well."""
    ground.new()
    for ended in ground.attempts(failing(code), rollback(ground), that_can_fail):
        ground.changed()
        ground.nothing_is_lost()
        assert ended in (0, FAILED, UNVERIFIED)
        if ended == 0:
            ground.is_before()
        ends_well(ground, goal)
        ground.new()
