"""Real sandboxed runs of one directory, made and ended in this process (see ``Checkpointed``)."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from snapbreaker.checkpoint.states import State
from snapbreaker.commit import Committed, commit
from snapbreaker.goal import Goal
from snapbreaker.issue import Issue
from snapbreaker.outcome import Outcome
from snapbreaker.rollback import roll_back
from snapbreaker.sandbox.apply import Applied, apply
from snapbreaker.sandbox.sandbox import Options, Sandbox
from tests import comparer
from tests.fs.checkpointed import Checkpointed, Facts
from tests.lab import inodes, subvolumes


class Sandboxed(Checkpointed):
    def __init__(self, root: Path, home: Path, options: Options | None = None) -> None:
        super().__init__(root, home, "overlay")
        home.mkdir(exist_ok=True, parents=True)
        self.saved = home / "seen"
        self.options = options or Options()
        self._sandbox: Sandbox | None = None
        self.crossed: list[str] = []  # links that are none on the machine

    @property
    def sandbox(self) -> Sandbox:
        assert self._sandbox is not None
        return self._sandbox

    def begin(self) -> None:
        super().begin()
        self._sandbox = Sandbox.of(self.made, self.options)

    def inside(self, change: Callable[[], None]) -> Facts:
        """Do ``change`` in the sandbox; what the tree is there afterwards."""
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                out = os.open(self.saved, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                self.sandbox.enter()
                change()
                facts = {path: tuple(fact) for path, fact in comparer.snapshot(self.root).items()}
                os.write(out, pickle.dumps(facts))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        return self.seen()

    def seen(self) -> Facts:
        return {path: comparer.Facts(*one) for path, one in pickle.loads(self.saved.read_bytes()).items()}

    def apply(self) -> Applied | Issue:
        self.sandbox.leave()
        return apply(self.made, self.sandbox.uppers)

    def commit(self) -> Committed | Issue:
        """As `run` does after a command that nothing tripped."""
        how = self.apply()
        self.crossed = how.crossed if isinstance(how, Applied) else []
        return how if isinstance(how, Issue) else commit(self.made, applied=how)

    def halt(self) -> Outcome:
        self.sandbox.close()
        goal = Goal.from_dict(self.made.status.get("goal", {}))
        self.made.pass_through(State.TRIPPED)
        return roll_back(self.made, goal)

    def close(self) -> None:
        if self._sandbox is not None:
            self._sandbox.close()


def possible(change: Callable[[], None], *, flags: bool = False) -> Callable[[], None]:
    """``change`` without what fails in a sandbox: to make and delete subvolumes, to rename directories, and in
    memory to set flags. For a process of its own.
    """

    def rename(old: Any, new: Any, **where: Any) -> None:
        """A directory of the lower cannot be renamed: mv(1) copies it then, and removes the old one."""
        try:
            plain_rename(old, new, **where)
        except OSError as error:
            if error.errno != errno.EXDEV or where:
                raise
            subprocess.run(["mv", "-T", os.fspath(old), os.fspath(new)], check=True)

    plain_rename = os.rename

    def what_is_possible() -> None:
        os.rename = rename  # type: ignore[assignment]
        subvolumes.create, subvolumes.delete = os.mkdir, shutil.rmtree
        if not flags:
            inodes.add_flags = inodes.remove_flags = lambda *_: None  # type: ignore[assignment]
        change()

    return what_is_possible


def visible(differences: list[str]) -> list[str]:
    """Without what an overlay does not show: that a directory is a subvolume, and flags that are not copied up."""
    unseen = (": flags 0x0 ->", ": project 0 ->", ": subvolume '' -> 'rw'")
    return [line for line in differences if not any(text in line for text in unseen)]
