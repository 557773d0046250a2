"""A sandboxed run killed, out of space or on a broken disk at each step of its commit, and of undoing it.

As in ``test_crash_steps``: afterwards, and after `recover`, there is the tree of before, or the one that the
command saw, when it was committed.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from snapbreaker.checkpoint.states import State
from snapbreaker.commit import Committed
from snapbreaker.goal import Goal
from snapbreaker.rollback import roll_back
from tests import comparer
from tests.fs.ground import FAILED, ISSUE, KILLED, UNVERIFIED, Ground, Work, die, failing, some, that_can_fail
from tests.fs.sandboxed import Sandboxed, possible
from tests.fs.test_crash_steps import rolled_back
from tests.lab import inodes
from tests.lab.loopfs import LoopFilesystem
from tests.lab.steps import Steps, counted

ERRORS = pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])


class Boxed(Ground):
    """The tree, and a new sandboxed run on it for each attempt."""

    def seed(self) -> None:
        super().seed()
        for path in (self.root / "locked", self.root / "locked/fixed"):
            inodes.remove_flags(path, inodes.IMMUTABLE)
        self.before = comparer.snapshot(self.root)

    def new(self) -> Sandboxed:
        self.number += 1
        self.run = Sandboxed(self.root, self.home / str(self.number))
        self.now = self.run
        return self.run

    def tried(self) -> None:
        self.run.begin()
        self.run.inside(possible(self.change))

    def is_seen(self) -> None:
        """The tree is what the command saw; that a directory is a subvolume an overlay does not show."""
        found = comparer.differences(self.run.seen(), comparer.snapshot(self.root))
        assert [line for line in found if not line.endswith("subvolume '' -> 'rw'")] == []


@pytest.fixture
def ground(filesystem: LoopFilesystem, tmp_path: Path) -> Boxed:
    return Boxed(filesystem, tmp_path)


def committing(ground: Boxed) -> Work:
    def work(steps: Steps) -> int:
        ground.tried()
        with counted(steps):
            well = isinstance(ground.run.commit(), Committed)
        if well:
            return 0
        return ISSUE if ground.run.halt().verified else UNVERIFIED

    return work


def undoing(ground: Boxed) -> Work:
    def work(steps: Steps) -> int:
        ground.tried()
        ground.run.commit()
        with counted(steps):
            return rolled_back(ground.run.undo)

    return work


def test_killed_in_commit(ground: Boxed) -> None:
    ground.new()
    for code in ground.attempts(die, committing(ground)):
        assert code in (0, ISSUE, KILLED)
        assert ground.run.recover() == 0
        record = ground.run.found()
        assert record is not None
        if record.state is State.COMMITTED:
            ground.is_seen()
            assert ground.run.undo().verified
        else:
            assert record.state is State.ROLLED_BACK
            assert code in (ISSUE, KILLED)
            assert code == ISSUE or record.status["issue"]["type"] == "INTERRUPTED"
        ground.is_before()
        ground.run.discard()
        ground.nothing_is_left()
        ground.new()


@ERRORS
def test_error_in_commit(ground: Boxed, code: int) -> None:
    """All of it is there, or nothing."""
    ground.new()
    for ended in ground.attempts(failing(code), committing(ground), that_can_fail):
        assert ended in (0, ISSUE)
        record = ground.run.found()
        assert record is not None
        assert record.state is (State.COMMITTED if ended == 0 else State.ROLLED_BACK)
        if ended == 0:
            ground.is_seen()
            assert ground.run.undo().verified
        ground.is_before()
        ground.run.discard()
        ground.nothing_is_left()
        ground.new()


def ends_well(ground: Boxed) -> None:
    record = ground.run.found()
    assert record is not None
    if record.state in (State.COMMITTED, State.FAILED):
        assert roll_back(record, Goal(undo=True)).verified
    assert ground.run.recover() == 0
    assert record.state is State.ROLLED_BACK
    ground.is_before()
    ground.run.discard()
    ground.nothing_is_left()


def test_killed_in_rollback(ground: Boxed) -> None:
    ground.new()
    for code in ground.attempts(die, undoing(ground), some):
        assert code in (0, KILLED)
        ends_well(ground)
        ground.new()


@ERRORS
def test_error_in_rollback(ground: Boxed, code: int) -> None:
    ground.new()
    for ended in ground.attempts(failing(code), undoing(ground), that_can_fail):
        assert ended in (0, FAILED, UNVERIFIED)
        if ended == 0:
            ground.is_before()
        ends_well(ground)
        ground.new()
