"""Signals as something to poll: signal.set_wakeup_fd. Only the main thread can take them."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TAKEN = (*INTERRUPTS, signal.SIGCHLD, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)


class Signals:
    """While entered, these signals do nothing but make ``fd`` readable. Ignored ones stay ignored (nohup)."""

    def __enter__(self) -> Signals:
        self.fd, self._write = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write, False)
        self._before: dict[int, Any] = {}
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in _TAKEN:
            if number == signal.SIGCHLD or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, _note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self.fd)
        os.close(self._write)

    @property
    def ignored(self) -> frozenset[int]:
        """What we were started with as ignored; the command shall be, too."""
        return frozenset(number for number in _TAKEN if number not in self._before)

    def take(self) -> set[int]:
        """The signals that came since the last call."""
        try:
            return set(os.read(self.fd, 4096))
        except BlockingIOError:
            return set()

    def stop_ourselves(self) -> None:
        """Do what SIGTSTP does by default, and return once continued. Nothing where no shell could continue us."""
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        try:
            os.kill(os.getpid(), signal.SIGTSTP)
        finally:
            signal.signal(signal.SIGTSTP, _note)


def _note(number: int, frame: FrameType | None) -> None:
    """The wakeup descriptor has told already."""
