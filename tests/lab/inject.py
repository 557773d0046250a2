"""snapbreaker with one fault in it: ``python3 -m tests.lab.inject FAULT STATE MARK ARGUMENT…``

FAULT is what happens when a checkpoint is about to enter STATE (``before-…``) or has entered it (``after-…``):
``raise``, ``oserror``, or ``kill`` of the process that does it. MARK is a file that is made when it happens;
it happens once. ARGUMENTs are snapbreaker's own.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Any

from snapbreaker.checkpoint.record import Record
from snapbreaker.checkpoint.states import State


class Injected(Exception):
    """An error that nobody expects."""


def arm(fault: str, state: str, mark: str) -> None:
    """Patch ``Record.enter``."""
    moment, _, name = state.partition("-")
    genuine = Record.enter

    def enter(self: Record, new: State, **facts: Any) -> None:
        if moment == "before" and str(new) == name:
            _strike(fault, mark)
        genuine(self, new, **facts)
        if moment == "after" and str(new) == name:
            _strike(fault, mark)

    Record.enter = enter  # type: ignore[method-assign]


def _strike(fault: str, mark: str) -> None:
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "oserror":
        raise OSError(errno.EIO, os.strerror(errno.EIO), "injected")
    raise Injected("injected")


if __name__ == "__main__":
    arm(*sys.argv[1:4])
    sys.argv[1:4] = []
    from snapbreaker.cli.main import launch

    launch()
