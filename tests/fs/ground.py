"""A tree that a process checkpoints, changes and rolls back, again for each step at which that is disturbed."""

from __future__ import annotations

import os
import pickle
import select
import shutil
import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from snapbreaker import parallel
from snapbreaker.files import bounds
from snapbreaker.report.model import absolute
from tests import comparer
from tests.fs import scene
from tests.fs.checkpointed import Checkpointed, Facts, in_child
from tests.fs.guarded import marks
from tests.fs.processes import descendants, kill_all
from tests.lab import inodes, soak
from tests.lab.loopfs import LoopFilesystem
from tests.lab.steps import Step, Steps, fail, read_trail

KILLED = -signal.SIGKILL
FAILED, ISSUE, UNVERIFIED = 10, 20, 30  # exit codes of the process that works
PROCESSES = 3  # that do parts of the work
STEPS = 3  # of each kind and filesystem in an ordinary test run

Act = Callable[[int], None]
"""What happens at a step. The number is the pid of the first process."""
Work = Callable[[Steps], int]
Choose = Callable[[Sequence[Step]], Sequence[Step]]


def in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done by several processes where a tree is large is done so here too, whatever the machine has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: range(PROCESSES))
    monkeypatch.setattr(bounds, "_SMALL", 1)
    monkeypatch.setattr(parallel, "PATHS_WORTH_A_PROCESS", 1)


def die(_first: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_together(first: int) -> None:
    """All that has come of the first process, in one moment."""
    kill_all([*descendants(first), first])


def die_but_for_the_guard(first: int) -> None:
    """All others, at a step of the guard."""
    kill_all({first, *descendants(first)} - {os.getpid(), os.getppid()})


def failing(code: int) -> Act:
    return lambda _first: fail(code)


def some(trail: Sequence[Step]) -> Sequence[Step]:
    stride = max(1, len(trail) // soak.times(STEPS))
    return trail[len(trail) % stride :: stride]


def that_can_fail(trail: Sequence[Step]) -> Sequence[Step]:
    return some([step for step in trail if step.can_fail])


class Ground:
    """A tree, and a new checkpoint of it for each attempt."""

    def __init__(self, filesystem: LoopFilesystem, home: Path) -> None:
        self.filesystem, self.home = filesystem, home
        self.root = filesystem.path / "scope"
        self.after: Facts = {}
        self.number = 0
        self.seed()

    def seed(self) -> None:
        """The tree as it is before; what is there goes."""
        if self.root.exists():
            for path in (self.root / "locked", *(self.root / "locked").iterdir()):
                inodes.remove_flags(path, inodes.IMMUTABLE | inodes.APPEND)
            shutil.rmtree(self.root)
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

    def change_guarded(self) -> None:
        """The same in a process that is killed as soon as the guard tells of trouble, as `run` does."""
        assert self.now.guards is not None
        if (pid := os.fork()) == 0:
            try:
                self.change()
            finally:
                os._exit(0)
        command = os.pidfd_open(pid)
        poll = select.poll()
        for fd in (command, *self.now.guards.watch_fds()):
            poll.register(fd, select.POLLIN)
        poll.poll()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(command)

    def is_before(self) -> None:
        assert comparer.differences(self.before, comparer.snapshot(self.root)) == []

    def is_before_or_told(self, told: Collection[str]) -> None:
        """What differs from before is among the paths that ``told`` names, and there are such paths."""
        assert told
        now = comparer.snapshot(self.root)
        differing = {path for path in self.before.keys() | now.keys() if self.before.get(path) != now.get(path)}
        assert {absolute(str(self.root), path) for path in differing} - set(told) == set()

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

    def attempts(self, act: Act, work: Work, choose: Choose = some, lasting: bool = False) -> Iterator[int]:
        """``work`` in a process, again for each step that is chosen, with ``act`` before it (if it is ``lasting``,
        before all that follow, too); its exit codes. The first time undisturbed, to learn the steps: that is an
        attempt as well.
        """
        trail = self.home / "trail"
        trail.write_text("")
        yield in_child(lambda: work(Steps(trail)))
        for step in choose(read_trail(trail)):
            print(step)
            yield in_child(lambda step=step: work(Steps(trail, step, partial(act, os.getpid()), lasting)))  # type: ignore[misc]


def tuple_of(facts: Facts) -> list[tuple[bytes, tuple[object, ...]]]:
    return [(path, tuple(fact)) for path, fact in facts.items()]
