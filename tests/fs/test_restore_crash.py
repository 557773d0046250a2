"""A restore that dies, or fails, at each of its steps; the next attempt ends it and nothing is lost."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snapbreaker.errors import RestoreError
from snapbreaker.files import ops
from snapbreaker.files.diff import diff
from snapbreaker.files.live import LiveTree
from snapbreaker.files.manifest import ManifestTree
from snapbreaker.files.policy import Policy
from snapbreaker.files.proof import Proof
from snapbreaker.files.restore import Restored, restore
from snapbreaker.files.stage import Stage, remove_attempts
from tests import comparer
from tests.fs import scene
from tests.fs.recording import record, recorded
from tests.lab.loopfs import FSTYPES, LoopFilesystem

DIED = 17
# Each filesystem takes every third step, and another third each.
STRIDE = len(FSTYPES)


class Ground:
    """A tree with its record, changed, ready to be restored again and again."""

    def __init__(self, filesystem: LoopFilesystem, tmp_path: Path) -> None:
        self.first = 1 + FSTYPES.index(filesystem.fstype)
        self.root, self.vault = filesystem.path / "scope", filesystem.path / ".snapbreaker/1-x/0"
        self.vault.mkdir(parents=True)
        self.root.mkdir()
        scene.seed(self.root)
        self.before = comparer.snapshot(self.root)
        with LiveTree(str(self.root)) as live:
            record(live, tmp_path)
        self.old: ManifestTree = recorded(tmp_path)
        scene.mutate(self.root)
        self.after = comparer.snapshot(self.root)

    def restore(self) -> Restored:
        with LiveTree(str(self.root)) as live:
            return restore(self.old, live, diff(self.old, live, Policy(), Proof.none()), Stage(str(self.vault)))

    def judge(self) -> None:
        """Exactly as before, and what the change had made is still somewhere."""
        assert comparer.differences(self.before, comparer.snapshot(self.root)) == []
        kept = scene.contents(self._everything()) | scene.contents(self.before)
        assert scene.contents(self.after) - kept == set()

    def judge_middle(self) -> None:
        """Each path holds what it held before or after, and nothing at all is lost."""
        now = comparer.snapshot(self.root)
        assert scene.strays(now, self.before, self.after) == []
        self.judge_nothing_is_lost()

    def judge_nothing_is_lost(self) -> None:
        now = comparer.snapshot(self.root)
        kept = scene.contents(self._everything()) | scene.contents(now) | scene.contents(self.before)
        assert scene.contents(self.after) - kept == set()

    def again(self) -> None:
        with LiveTree(str(self.root)) as live:
            remove_attempts(str(self.vault), live.root_fd)
        scene.mutate(self.root)
        self.after = comparer.snapshot(self.root)

    def _everything(self) -> dict[bytes, comparer.Facts]:
        """What lies in slots, in the vault and in subvolumes."""
        found = comparer.snapshot(self.vault)
        for place in self.root.glob("volume*/.snapbreaker"):
            found.update((os.fsencode(place) + path, fact) for path, fact in comparer.snapshot(place).items())
        return found


@pytest.fixture
def ground(filesystem: LoopFilesystem, tmp_path: Path) -> Iterator[Ground]:
    ground = Ground(filesystem, tmp_path)
    yield ground
    ground.old.close()


@pytest.fixture(autouse=True)
def no_hook() -> Iterator[None]:
    yield
    ops.before = None


def hook(at: int, act: Callable[[], None]) -> Callable[[], int]:
    """Call ``act`` ahead of operation number ``at``; the result tells how many there were."""
    count = 0

    def before(operation: str, name: bytes) -> None:
        nonlocal count
        count += 1
        if count == at:
            act()

    ops.before = before
    return lambda: count


def dies_at(ground: Ground, step: int) -> bool:
    """A restore by a process that dies ahead of that step; False when it had ended before."""
    pid = os.fork()
    if pid == 0:
        hook(step, lambda: os._exit(DIED))
        ground.restore()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == DIED


def test_death_at_every_step(ground: Ground) -> None:
    for step in itertools.count(ground.first, STRIDE):
        if not dies_at(ground, step):
            break
        ground.judge_middle()
        assert ground.restore().failures == ()
        ground.judge()
        ground.again()
    assert step > 100
    ground.judge()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_error_at_every_step(ground: Ground, code: int) -> None:
    for step in itertools.count(ground.first, STRIDE):

        def fail() -> None:
            raise OSError(code, os.strerror(code))

        count = hook(step, fail)
        try:
            restored = ground.restore()
        except RestoreError:
            ops.before = None
            assert comparer.differences(ground.after, comparer.snapshot(ground.root)) == []
        else:
            ops.before = None
            if count() < step:
                break
            ground.judge_middle()
            if not restored.failures:
                ground.judge()
        ground.restore()
        ground.judge()
        ground.again()
    assert step > 100
    ground.judge()


def test_two_deaths_in_a_row(ground: Ground) -> None:
    for step in range(40, 160, 30):
        for further in (10, 50):
            dies_at(ground, step + further)
            ground.judge_middle()
        ground.restore()
        ground.judge()
        ground.again()


def test_unused_staged_files_are_removed(ground: Ground) -> None:
    assert dies_at(ground, 25)
    assert (ground.vault / "restore.1").exists()
    ground.restore()
    assert not (ground.vault / "restore.1").exists(), "it had not put anything in place"
    ground.judge()
