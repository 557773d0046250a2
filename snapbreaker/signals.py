"""What SIGINT, SIGTERM and SIGHUP mean outside the monitor, which has its own way to take them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal that asks to stop, at a time when nothing was started yet."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def interruptible() -> Iterator[None]:
    """In the block each of STOPPING raises Interrupted, once: cleaning up is not interrupted again.

    Ignored ones stay ignored (nohup, ``--on-hangup continue``).
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        for other in STOPPING:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)

    heard = [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Late:
    """Signals that came when there was nothing to interrupt. ``number``: the first of them, 0 for none."""

    def __init__(self) -> None:
        self.number = 0

    def note(self, number: int, _frame: FrameType | None) -> None:
        self.number = self.number or number


@contextmanager
def noted() -> Iterator[Late]:
    """In the block STOPPING only leave a note: whoever is stopped twice must not die on the way to the rollback.

    Afterwards they are ignored: it is too late for anything. Ignored ones stay ignored (nohup).
    """
    late = Late()
    before = {number: signal.getsignal(number) for number in STOPPING}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, late.note)
    try:
        yield late
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def deferred() -> Iterator[None]:
    """In the block they are ignored: a restore or a commit is finished, not interrupted."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
