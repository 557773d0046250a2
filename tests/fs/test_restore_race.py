"""An unprivileged user who swaps names while a checkpoint is made and restored: nothing outside of the scope is
touched, and when he stops all comes back.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from snapbreaker.errors import SnapbreakerError
from snapbreaker.goal import Goal
from snapbreaker.rollback import roll_back
from tests import comparer
from tests.fs.checkpointed import Checkpointed
from tests.lab import soak
from tests.lab.loopfs import LoopFilesystem
from tests.lab.racer import NOBODY, Racer

ROUNDS = 3


class Ground:
    """``outside`` has the same names as the directory that is swapped, and one file of his own."""

    def __init__(self, filesystem: LoopFilesystem) -> None:
        self.scope, self.outside = filesystem.path / "scope", filesystem.path / "outside"
        self.home = self.scope / "home"
        for place in (self.home / "work", self.outside):
            (place / "inner").mkdir(parents=True)
            for number in range(10):
                (place / f"file{number}").write_text("before")
                (place / f"inner/file{number}").write_text("before")
        (self.outside / "own").write_text("his own")
        (self.outside / "own").chmod(0o604)
        for path in (self.home, *self.home.rglob("*"), self.outside / "own"):
            os.chown(path, NOBODY, NOBODY)
        self.untouched = self.facts_outside()

    def facts_outside(self) -> list[tuple[bytes, comparer.Facts, int]]:
        """With ctimes: whatever changes a file moves its own. But for that of his file, which he links himself."""
        facts = comparer.snapshot(self.outside)
        return [
            (path, fact._replace(linked=b""), 0 if path == b"own" else os.lstat(self._place(path)).st_ctime_ns)
            for path, fact in facts.items()
        ]

    def _place(self, path: bytes) -> bytes:
        return os.fsencode(self.outside) + b"/" + path

    def change(self) -> None:
        """By the command."""
        work = self.home / "work"
        for number in range(10):
            (work / f"file{number}").chmod(0o600 + number)
            (work / f"inner/file{number}").write_text("after")
        os.chown(work / "file1", 1, 1)
        (work / "file2").unlink()
        (work / "made").write_text("after")
        shutil.rmtree(work / "inner") if (work / "file3").stat().st_ino % 2 else (work / "inner").chmod(0o700)

    def set_right(self) -> None:
        """He has stopped: his own names, wherever they are, go."""
        if (self.home / "work").is_symlink():
            (self.home / "work").unlink()
            with suppress(FileNotFoundError, OSError):
                (self.home / "trap").rename(self.home / "work")
        for name in ("trap", "bait"):
            path = self.home / name
            if path.is_symlink() or path.is_file():
                path.unlink()
            elif path.is_dir():
                shutil.rmtree(path)


def test_nobody_leads_it_out_of_the_scope(filesystem: LoopFilesystem, tmp_path: Path) -> None:
    ground, racer = Ground(filesystem), Racer()
    before = comparer.snapshot(ground.scope)
    for number in range(soak.times(ROUNDS)):
        checkpoint = Checkpointed(ground.scope, tmp_path / str(number))
        checkpoint.begin()
        ground.change()
        with racer.at_work(ground.home, ground.outside):
            for _ in range(3):
                checkpoint.halt() if checkpoint.made.state == "running" else roll_back(checkpoint.made, Goal())
                assert ground.facts_outside() == ground.untouched
        ground.set_right()
        outcome = roll_back(checkpoint.made, Goal())
        said = [(one.failures, one.differences) for one in outcome.volumes], outcome.errors
        assert comparer.differences(before, comparer.snapshot(ground.scope)) == [], said
        assert outcome.verified, said
        checkpoint.discard()
        assert ground.facts_outside() == ground.untouched
    assert racer.swaps > 100


def test_nothing_from_outside_gets_into_a_checkpoint(filesystem: LoopFilesystem, tmp_path: Path) -> None:
    ground, racer = Ground(filesystem), Racer()
    foreign = {os.lstat(path).st_ino for path in ground.outside.rglob("*")} - {
        (ground.outside / "own").stat().st_ino  # which he may link wherever he can write
    }
    for number in range(soak.times(ROUNDS)):
        checkpoint = Checkpointed(ground.scope, tmp_path / str(number))
        with racer.at_work(ground.home, ground.outside), suppress(SnapbreakerError):  # it may be too restless
            checkpoint.create()
        kept = {path.stat().st_ino for path in filesystem.path.glob(".snapbreaker/*/0/links/*/*")}
        assert not kept & foreign
        checkpoint.discard()
        assert ground.facts_outside() == ground.untouched
    assert racer.swaps > 100
