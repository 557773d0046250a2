"""`snapbreaker run` on a disk that is full or broken.

Where there is no checkpoint there is no command: exit 4, and one line says why. Later it is the exit code that is
true whatever fails.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests import comparer
from tests.fs import scene
from tests.fs.ground import that_can_fail
from tests.lab import soak
from tests.lab.loopfs import LoopFilesystem
from tests.lab.steps import Step, read_trail
from tests.lab.tool import Result, Tool

COMMAND = "command"  # among the names of steps
BESIDES = (b"snapbreaker: hint: ", b"snapbreaker: checkpoint ")
WHY = (b"no space", b"could not be written")
ERRORS = (errno.EIO, errno.ENOSPC)


class Disk:
    """Runs of a command that does what no rollback takes away: it notes that it ran."""

    def __init__(self, tool: Tool, filesystem: LoopFilesystem) -> None:
        self.tool, self.filesystem, self.trail = tool, filesystem, tool.home / "trail"
        self.root = filesystem.path / "scope"
        self.root.mkdir()
        scene.seed(self.root)
        self.before = comparer.snapshot(self.root)
        self.vaults: set[Path] = set()

    def run(self, error: str, step: Step) -> Result:
        self.trail.unlink(missing_ok=True)
        entry = ("-m", "tests.lab.steps", str(self.trail), error, step.process, step.name, str(step.number))
        change = f"echo - {COMMAND} 1 >>{self.trail}; echo after >{self.root}/link-1; echo ERROR; sleep 9"
        return self.tool.run(self.root, "sh", "-c", change, entry=entry)

    def learn(self) -> tuple[Sequence[Step], Sequence[Step]]:
        """The steps before the command is started, and those after."""
        result = self.run("-", Step("-", "-", 0))
        assert result.status == 1, result
        trail = read_trail(self.trail)
        self.vaults = set(self.filesystem.path.glob(".snapbreaker/*"))
        command = [step.name for step in trail].index(COMMAND)
        return trail[:command], trail[command + 1 :]

    def judge_start(self, code: int, step: Step, result: Result) -> None:
        """A step may fail without doing harm."""
        told = (step, result)
        if self.trail.exists():
            self.judge_run(step, result)
            return
        assert b"Traceback" not in result.stderr, told
        assert comparer.differences(self.before, comparer.snapshot(self.root)) == [], told
        assert result.status == 4, told
        said = [line for line in result.stderr.splitlines() if not line.startswith(BESIDES)]
        assert len(said) == 1, told
        assert said[0].startswith(b"snapbreaker: "), told
        assert any(why in said[0] for why in (os.strerror(code).encode(), *WHY)), told
        assert set(self.filesystem.path.glob(".snapbreaker/*")) == self.vaults, told

    def judge_run(self, step: Step, result: Result) -> None:
        """Not everything was put back, or it could not be noted: that is told, and the next rollback ends well."""
        told = (step, result)
        assert b"Traceback" not in result.stderr, told
        if result.status == 3:
            again = ("rollback", "--last", "--yes") if b"rollback" in result.stderr else ("recover",)
            assert self.tool(*again).status == 0, told
        else:
            assert result.status == (1 if self.trail.exists() else 4), told
        assert comparer.differences(self.before, comparer.snapshot(self.root)) == [], told
        self.vaults.update(self.filesystem.path.glob(".snapbreaker/*"))


def failing(steps: Sequence[Step]) -> Iterator[tuple[int, Step]]:
    """Which error at which step: each at all of them in a long run, else in turns."""
    for number, step in enumerate(that_can_fail(steps)):
        for code in ERRORS if soak.IS_LONG else (ERRORS[number % len(ERRORS)],):
            yield code, step


def test_before_the_command(ext4: LoopFilesystem, tool: Tool) -> None:
    disk = Disk(tool, ext4)
    before, _ = disk.learn()
    for code, step in failing(before):
        disk.judge_start(code, step, disk.run(errno.errorcode[code], step))


def test_after_its_start(ext4: LoopFilesystem, tool: Tool) -> None:
    disk = Disk(tool, ext4)
    _, after = disk.learn()
    for code, step in failing(after):
        disk.judge_run(step, disk.run(errno.errorcode[code], step))
