"""Killed, out of space or on a broken disk at each step of create, and of the guard while the command runs.

In whichever process it happens: the one that makes the checkpoint, those that help it, the guard. There is no
checkpoint then, or one that a rollback goes back to exactly; where it cannot, it says so and names the files. An
ordinary test run takes some of the steps; ``SNAPBREAKER_SOAK=100`` all of them.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from snapbreaker.checkpoint.states import State
from snapbreaker.errors import SnapbreakerError
from snapbreaker.guard.saved import SavedFiles
from snapbreaker.report.model import absolute
from tests.fs.conftest import MakeFilesystem
from tests.fs.ground import (
    FAILED,
    KILLED,
    UNVERIFIED,
    Act,
    Ground,
    Work,
    die,
    die_but_for_the_guard,
    die_together,
    failing,
    in_small_pieces,
    some,
    that_can_fail,
)
from tests.lab import soak
from tests.lab.loopfs import LoopFilesystem
from tests.lab.steps import FIRST, Step, Steps, counted

ERRORS = pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
KILLS = pytest.mark.parametrize("kill", [die, die_together])


@pytest.fixture
def ground(filesystem: LoopFilesystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    in_small_pieces(monkeypatch)
    return Ground(filesystem, tmp_path)


@pytest.fixture
def guarded(make_filesystem: MakeFilesystem, tmp_path: Path) -> Ground:
    return Ground(make_filesystem("ext4"), tmp_path)


def running(ground: Ground) -> Work:
    """A run that is halted at its end, or when the guard says so."""

    def work(steps: Steps) -> int:
        try:
            with counted(steps):
                ground.now.create()
        except SnapbreakerError:
            return FAILED
        ground.now.made.enter(State.RUNNING)
        ground.change_guarded()
        outcome = ground.now.halt()
        told = [
            absolute(volume.root, path)
            for volume in outcome.volumes
            for path in (*(one for one, _ in volume.failures), *(one.path for one in volume.differences))
        ]
        (ground.home / "told").write_text(json.dumps(told))
        return 0 if outcome.verified else UNVERIFIED

    return work


def judge(ground: Ground, ended: int) -> None:
    """What the process that worked said is true; and `recover` ends well, or names what is lost."""
    if ended == FAILED:
        ground.is_before()
        ground.nothing_is_left()
        return
    told = json.loads((ground.home / "told").read_text()) if ended == UNVERIFIED else []
    record = ground.now.found()
    if ground.now.recover():
        assert ended == KILLED
        told = ground.now.told
    if told:
        assert record is not None
        assert record.state is State.FAILED
        ground.is_before_or_told(told)
        print(f"named: {len(told)}")
    else:
        assert ended in (0, KILLED)
        ground.is_before()
    if record is not None and record.path.exists():
        ground.now.discard()
    ground.nothing_is_left()
    if told:
        ground.seed()


def attempted(
    ground: Ground, act: Act, choose: Callable[[Sequence[Step]], Sequence[Step]], lasting: bool = False
) -> None:
    ground.new()
    for ended in ground.attempts(act, running(ground), choose, lasting):
        judge(ground, ended)
        ground.new()


def of_each(trail: Sequence[Step]) -> Sequence[Step]:
    """In an ordinary run one step of each process that helps, and some of the first one's."""
    if soak.IS_LONG:
        return some(trail)
    processes: dict[str, list[Step]] = {}
    for step in trail:
        processes.setdefault(step.process, []).append(step)
    return [*some(processes.pop(FIRST)), *(steps[len(steps) // 2] for steps in processes.values())]


@KILLS
def test_killed_in_create(ground: Ground, kill: Act) -> None:
    attempted(ground, kill, of_each)


@ERRORS
def test_error_in_create(ground: Ground, code: int) -> None:
    attempted(ground, failing(code), lambda trail: of_each([step for step in trail if step.can_fail]))


# The guard: few of the steps above are its own.


def of_the_guard(trail: Sequence[Step]) -> Sequence[Step]:
    return [step for step in trail if step.process != FIRST]


@KILLS
def test_guard_killed(guarded: Ground, kill: Act) -> None:
    """It alone, while writers wait for it; or everybody."""
    attempted(guarded, kill, lambda trail: some(of_the_guard(trail)))


def test_worker_killed(guarded: Ground) -> None:
    """The guard goes on, and whoever finishes the run finds everything saved."""

    def of_itself(trail: Sequence[Step]) -> Sequence[Step]:
        return some([step for step in trail if step.process.count(".") == 2])

    guarded.new()
    for ended in guarded.attempts(die_but_for_the_guard, running(guarded), of_itself):
        judge(guarded, ended)
        assert guarded.now.told == set()
        guarded.new()


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@ERRORS
def test_error_in_guard(guarded: Ground, code: int, lasting: bool) -> None:
    """Its log or what it saves cannot be written, or is not on the disk."""
    attempted(guarded, failing(code), lambda trail: that_can_fail(of_the_guard(trail)), lasting)


def test_no_room_for_its_last_line(guarded: Ground) -> None:
    """Until when it was watching is known all the same, and what a restore has touched since is no loss."""

    def last_write(trail: Sequence[Step]) -> Sequence[Step]:
        return [step for step in of_the_guard(trail) if step.name == "write"][-1:]

    guarded.new()
    for ended in guarded.attempts(failing(errno.ENOSPC), running(guarded), last_write):
        assert ended == 0
        judge(guarded, ended)
        guarded.new()


def test_died_after_the_changes(guarded: Ground) -> None:
    guarded.new().begin()
    guarded.change()
    time.sleep(0.2)  # more than between two signs of life
    saved = SavedFiles(guarded.now.made.meta.volumes[0].stored.vault)
    guardian = saved.guardian
    saved.close()
    assert guardian is not None
    os.kill(guardian.pid, signal.SIGKILL)
    assert guarded.now.halt().verified
    guarded.is_before()
    guarded.now.discard()
    guarded.nothing_is_left()
