"""Killed, out of space or on a broken disk at each step of create, commit and rollback, with the real backends.

Afterwards, and after `recover`, there is the tree of the checkpoint, or that of the command when it was committed:
never a mixture, and nothing that the command had made is gone. An ordinary test run takes some of the steps;
``SNAPBREAKER_SOAK=100`` all of them.
"""

from __future__ import annotations

import errno
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snapbreaker.checkpoint.states import State
from snapbreaker.commit import Committed
from snapbreaker.errors import SnapbreakerError
from snapbreaker.goal import Goal
from snapbreaker.outcome import Outcome
from snapbreaker.rollback import roll_back
from tests import comparer
from tests.fs import scene
from tests.fs.checkpointed import Checkpointed, Facts, in_child
from tests.fs.guarded import marks
from tests.lab import soak
from tests.lab.loopfs import LoopFilesystem
from tests.lab.steps import Steps, counted

KILLED = -signal.SIGKILL
FAILED, ISSUE, UNVERIFIED = 10, 20, 30  # exit codes of the process that works
STEPS = 6  # of each kind and filesystem in an ordinary test run


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def error(code: int) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(code, os.strerror(code))

    return fail


ERRORS = pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])


def some(trail: list[str]) -> list[int]:
    """Of the steps with these names, the first is number 1."""
    stride = max(1, len(trail) // soak.times(STEPS))
    return list(range(1 + len(trail) % stride, len(trail) + 1, stride))


class Ground:
    """A tree, and a new checkpoint of it for each attempt."""

    def __init__(self, filesystem: LoopFilesystem, home: Path) -> None:
        self.filesystem, self.home = filesystem, home
        self.root = filesystem.path / "scope"
        self.root.mkdir()
        scene.seed(self.root)
        for name in ("touched", "restricted", "replaced", "rewritten", "stays", "moved", "pair"):
            (self.root / name).write_text(f"before: {name}")
        os.link(self.root / "pair", self.root / "twin")
        (self.root / "mode").mkdir()
        (self.root / "mode/rewritten").write_text("before: in a directory with another mode")
        for name in ("equal-1", "equal-2"):
            (self.root / name).write_text("of the same content")
        self.before = comparer.snapshot(self.root)
        self.after: Facts = {}
        self.number = 0

    def new(self) -> Checkpointed:
        self.number += 1
        self.now = Checkpointed(self.root, self.home / str(self.number))
        return self.now

    def change(self) -> None:
        """What the command does. Of files that are linked metadata is changed before they go."""
        scene.mutate(self.root)
        for name in ("touched", "stays", "moved", "pair"):
            os.utime(self.root / name, ns=(1, 1))
        (self.root / "touched").unlink()
        (self.root / "stays").chmod(0o600)
        (self.root / "moved").rename(self.root / "a-moved")
        (self.root / "twin").unlink()
        for old, new in (("equal-1", "spare"), ("equal-2", "equal-1"), ("spare", "equal-2")):
            (self.root / old).rename(self.root / new)
        (self.root / "restricted").chmod(0o600)
        os.setxattr(self.root / "restricted", "user.x", b"y")
        (self.root / "restricted").unlink()
        (self.root / "new").write_text("after: replaced")
        (self.root / "new").rename(self.root / "replaced")
        (self.root / "rewritten").write_text("after: rewritten")  # in place
        (self.root / "mode").chmod(0o700)
        (self.root / "mode/rewritten").write_text("after: its mtime is what it was")
        (self.home / "after").write_bytes(pickle.dumps(tuple_of(comparer.snapshot(self.root))))

    def changed(self) -> Facts:
        self.after = {path: comparer.Facts(*one) for path, one in pickle.loads((self.home / "after").read_bytes())}
        return self.after

    def is_before(self) -> None:
        assert comparer.differences(self.before, comparer.snapshot(self.root)) == []

    def is_after(self) -> None:
        assert comparer.differences(self.after, comparer.snapshot(self.root)) == []

    def nothing_is_lost(self) -> None:
        """Each path has what it had before or after; what is gone from there lies in the vault or in a slot."""
        here = comparer.snapshot(self.root)
        assert scene.strays(here, self.before, self.after) == []
        kept = scene.contents(here) | scene.contents(self.before) | scene.contents(self._displaced())
        assert scene.contents(self.after) - kept == set()

    def _displaced(self) -> Facts:
        found: Facts = {}
        for place in (*self.filesystem.path.glob(".snapbreaker"), *self.root.glob("volume*/.snapbreaker")):
            found.update((os.fsencode(place) + path, fact) for path, fact in comparer.snapshot(place).items())
        return found

    def nothing_is_left(self) -> None:
        assert not (self.filesystem.path / ".snapbreaker").exists()
        assert self.now.store.records() == []
        assert list(marks(os.stat(self.root).st_dev)) == []

    def attempts(
        self,
        act: Callable[[], None],
        work: Callable[[Steps], int],
        choose: Callable[[list[str]], list[int]] = some,
    ) -> Iterator[int]:
        """``work`` in a process, again for each step that is chosen, with ``act`` before it; its exit codes. The
        first time undisturbed, to learn the steps: that is an attempt too.
        """
        (self.home / "trail").touch()
        yield in_child(lambda: self._attempt(Steps(), work))
        for step in choose((self.home / "trail").read_text().split()):
            yield in_child(lambda step=step: self._attempt(Steps(step, act), work))  # type: ignore[misc]

    def _attempt(self, steps: Steps, work: Callable[[Steps], int]) -> int:
        code = work(steps)
        if not steps.at:
            (self.home / "trail").write_text(" ".join(steps.trail))
        return code


def tuple_of(facts: Facts) -> list[tuple[bytes, tuple[object, ...]]]:
    return [(path, tuple(fact)) for path, fact in facts.items()]


@pytest.fixture
def ground(filesystem: LoopFilesystem, tmp_path: Path) -> Ground:
    return Ground(filesystem, tmp_path)


# Create.


def creating(ground: Ground) -> Callable[[Steps], int]:
    def work(steps: Steps) -> int:
        with counted(steps):
            try:
                ground.now.create()
            except SnapbreakerError:
                return FAILED
        return 0

    return work


def test_killed_in_create(ground: Ground) -> None:
    ground.new()
    for code in ground.attempts(die, creating(ground)):
        assert code in (0, KILLED)
        ground.is_before()
        assert ground.now.recover() == 0
        ground.is_before()
        ground.nothing_is_left()
        ground.new()


@ERRORS
def test_error_in_create(ground: Ground, code: int) -> None:
    """It fails as a whole, and clears up after itself; or it did not matter."""
    ground.new()
    for ended in ground.attempts(error(code), creating(ground)):
        assert ended in (0, FAILED)
        ground.is_before()
        if ended == 0:
            assert ground.now.recover() == 0
        ground.nothing_is_left()
        ground.new()


# Commit.


def committing(ground: Ground) -> Callable[[Steps], int]:
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
    ground.new()
    for code in ground.attempts(die, committing(ground)):
        assert code in (0, KILLED)
        ground.changed()
        ground.is_after()
        assert ground.now.recover() == 0
        record = ground.now.found()
        assert record is not None
        if record.state is State.COMMITTED:
            ground.is_after()
            assert ground.now.undo().verified
        else:
            assert record.state is State.ROLLED_BACK
            assert code == KILLED
        ground.is_before()
        ground.nothing_is_lost()
        ground.now.discard()
        ground.nothing_is_left()
        ground.new()


@ERRORS
def test_error_in_commit(ground: Ground, code: int) -> None:
    """A change that cannot be undone does not stay."""
    ground.new()
    for ended in ground.attempts(error(code), committing(ground)):
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


def halting(ground: Ground) -> Callable[[Steps], int]:
    def work(steps: Steps) -> int:
        ground.now.begin()
        ground.change()
        with counted(steps):
            return rolled_back(ground.now.halt)

    return work


def undoing(ground: Ground) -> Callable[[Steps], int]:
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


@ROLLBACKS
def test_killed_in_rollback(
    ground: Ground, rollback: Callable[[Ground], Callable[[Steps], int]], goal: Goal
) -> None:
    ground.new()
    for code in ground.attempts(die, rollback(ground)):
        assert code in (0, KILLED)
        ground.changed()
        ground.nothing_is_lost()
        record = ground.now.found()
        assert record is not None
        if record.state is State.COMMITTED:  # it had not begun
            again = roll_back(record, goal)
            assert again.verified, [(one.failures, one.differences) for one in again.volumes]
        assert ground.now.recover() == 0
        assert record.state is State.ROLLED_BACK
        ground.is_before()
        ground.nothing_is_lost()
        ground.now.discard()
        ground.nothing_is_left()
        ground.new()


def test_killed_when_a_file_was_touched_for_its_return(ext4: LoopFilesystem, tmp_path: Path) -> None:
    """A link or a rename moves the ctime of a file whose mtime the command had changed: what it holds is known
    from before.
    """
    ground = Ground(ext4, tmp_path)
    ground.new()

    def after_links(trail: list[str]) -> list[int]:
        return [number + 2 for number, name in enumerate(trail) if name == "link"]

    for code in ground.attempts(die, halting(ground), after_links):
        assert code in (0, KILLED)
        assert ground.now.recover() == 0
        ground.is_before()
        ground.now.found()
        ground.now.discard()
        ground.new()


@ERRORS
@ROLLBACKS
def test_error_in_rollback(
    ground: Ground, rollback: Callable[[Ground], Callable[[Steps], int]], goal: Goal, code: int
) -> None:
    """What it says of its end is true; and the next one ends well."""
    ground.new()
    for ended in ground.attempts(error(code), rollback(ground)):
        ground.changed()
        ground.nothing_is_lost()
        record = ground.now.found()
        assert record is not None
        assert ended in (0, FAILED, UNVERIFIED)
        if ended == 0:
            ground.is_before()
        elif record.state in (State.COMMITTED, State.FAILED):
            again = roll_back(record, goal)
            assert again.verified, [(one.failures, one.differences) for one in again.volumes]
        assert ground.now.recover() == 0
        assert record.state is State.ROLLED_BACK
        ground.is_before()
        ground.nothing_is_lost()
        ground.now.discard()
        ground.nothing_is_left()
        ground.new()
