"""Real checkpoints of one directory, made, used and recovered in this process: no time goes for Python's start.

What the command line adds is not here: the command's processes, the supervisor, the foreign watcher.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from snapbreaker.checkpoint.create import Request, create
from snapbreaker.checkpoint.discard import discard
from snapbreaker.checkpoint.owner import Owner
from snapbreaker.checkpoint.record import Record
from snapbreaker.checkpoint.states import State
from snapbreaker.checkpoint.store import Store
from snapbreaker.commit import Committed, commit
from snapbreaker.errors import SnapbreakerError
from snapbreaker.goal import Goal
from snapbreaker.guard.guards import Guards
from snapbreaker.issue import Issue
from snapbreaker.monitor.streams import Relay
from snapbreaker.outcome import Outcome
from snapbreaker.recover import recover
from snapbreaker.redo import redo
from snapbreaker.report.model import Report
from snapbreaker.rollback import roll_back
from snapbreaker.story import Story
from tests import comparer

Facts = dict[bytes, comparer.Facts]


class Quiet:
    """A narrator that tells nobody, and remembers the last report and what went wrong."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.report: Report | None = None

    def hint(self, text: str) -> None: ...
    def starting(self, verb: str, request: Request) -> None: ...
    def progress(self, phase: str, entries: int, octets: int = 0) -> None: ...
    def checkpointed(self, record: Record) -> None: ...
    def running(self, record: Record, pid: int) -> None: ...
    def confirming(self, record: Record, seconds: float) -> None: ...
    def tripped(self, record: Record, story: Story) -> None: ...
    def status(self, record: Record) -> str:
        return ""

    def relays(self) -> Mapping[str, Relay] | None:
        return None

    def finished(self, report: Report) -> None:
        self.report = report

    def failed(self, error: SnapbreakerError) -> None:
        self.failures.append(str(error))


class Checkpointed:
    """``root`` with a store in ``home``. With ``guarded`` false there are no hard links, only copies."""

    def __init__(self, root: Path, home: Path, backend: str | None = None, guarded: bool = True) -> None:
        self.root, self.store, self.backend = root, Store(home / "store"), backend
        self.guards = Guards(lambda pid: None) if guarded else None
        self.record: Record | None = None
        self.told: set[str] = set()

    @property
    def made(self) -> Record:
        assert self.record is not None
        return self.record

    def create(self) -> None:
        """As `run` does before it starts the command. Raises SnapbreakerError."""
        owners = [Owner.of(os.getpid())]
        request = Request(scope=[str(self.root)], backend=self.backend, owners=owners)
        self.record = create(self.store, request, guards=self.guards)

    def begin(self) -> None:
        self.create()
        self.made.enter(State.RUNNING)

    def halt(self) -> Outcome:
        """As after an issue."""
        self.made.pass_through(State.TRIPPED)
        return roll_back(self.made, Goal())

    def commit(self) -> Committed | Issue:
        return commit(self.made)

    def undo(self) -> Outcome:
        """As `rollback` of a committed run."""
        return roll_back(self.made, Goal(undo=True))

    def redo(self) -> Outcome:
        return redo(self.made)

    def recover(self) -> int:
        """As `recover`, when all who worked on it are dead. Returns its exit code; ``told`` are the paths that it
        names when that is not 0.
        """
        quiet = Quiet()
        code = recover(self.store, quiet)
        assert quiet.failures == []
        self.told = set()
        if code:
            assert quiet.report is not None
            print(quiet.report)
            self.told = {note.path for note in (*quiet.report.differences, *quiet.report.failures)}
        return code

    def found(self) -> Record | None:
        """The newest record of the store, whoever made it."""
        self.record = next(iter(reversed(self.store.records())), None)
        return self.record

    def discard(self) -> None:
        """Everything goes; nothing of it may be left on the volume or as a process."""
        if self.guards is not None:
            self.guards.close()
        if (record := self.record) is not None:
            vaults = [f"{volume.stored.volume.vault_base}/{record.id}" for volume in record.meta.volumes]
            discard(record)
            self.record = None
            assert [path for path in vaults if os.path.exists(path)] == []

    def facts(self) -> Facts:
        return comparer.snapshot(self.root)


def in_child(work: Callable[[], int]) -> int:
    """Do it in a process of its own. What it returns; 70 for an exception, negative for a signal. All that it has
    forked is gone then, too, but for a guard, which holds no descriptor that it does not know.
    """
    ended, held = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(held)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.read(ended, 1)
    os.close(ended)
    return code
