"""Terminals: ours, whose state must come back whatever happens, and the command's, a pty. termios(3), pty(7)."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
import tty
from contextlib import suppress
from typing import Any

from snapbreaker.dataclass import dataclass

_DEFAULT_SIZE = struct.pack("HHHH", 24, 80, 0, 0)
_ISIG_CHARACTERS = {termios.VINTR: signal.SIGINT, termios.VQUIT: signal.SIGQUIT, termios.VSUSP: signal.SIGTSTP}


@dataclass(frozen=True, slots=True)
class TerminalState:
    """Line settings of the terminal at ``fd``, to be put back by us or by a process that inherited ``fd``."""

    fd: int
    attributes: list[Any]

    @classmethod
    def save(cls, fd: int = 0) -> TerminalState | None:
        """None when ``fd`` is no terminal."""
        try:
            return cls(fd, termios.tcgetattr(fd))
        except termios.error:
            return None

    def restore(self) -> None:
        """Put the settings back at once. Works from the background too; a terminal that is gone is no error."""
        with _background_output_allowed(), suppress(termios.error):
            termios.tcsetattr(self.fd, termios.TCSANOW, self.attributes)

    def make_raw(self) -> None:
        """Every key goes to the command as it is; its own terminal does the editing, echo and signals."""
        with suppress(termios.error):
            tty.setraw(self.fd, termios.TCSANOW)


class _background_output_allowed:
    """With SIGTTOU blocked the kernel lets a background process change the terminal: tcsetattr(3)."""

    def __enter__(self) -> None:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def open_pty(like: TerminalState | None) -> tuple[int, int]:
    """Master and slave with the settings and size of the terminal ``like``, or 80 columns by 24 with defaults."""
    master, slave = os.openpty()
    if like:
        with suppress(termios.error):
            termios.tcsetattr(slave, termios.TCSANOW, like.attributes)
    copy_size(like.fd if like else None, master)
    return master, slave


def copy_size(source: int | None, target: int) -> None:
    """Give ``target`` the window size of ``source``, pixels included; its foreground group gets SIGWINCH."""
    size = _DEFAULT_SIZE
    if source is not None:
        with suppress(OSError):
            size = fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8))
    with suppress(OSError):
        fcntl.ioctl(target, termios.TIOCSWINSZ, size)


def has_controlling_terminal() -> bool:
    """Whether this process could talk to an operator through /dev/tty."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def signal_keys(master: int) -> dict[int, signal.Signals]:
    """Keys that the slave turns into signals now; none while a program reads them itself (ISIG off).

    On Linux the master shows the slave's settings: drivers/tty/tty_ioctl.c, tty_mode_ioctl.
    """
    try:
        attributes = termios.tcgetattr(master)
    except termios.error:
        return {}
    if not attributes[3] & termios.ISIG:
        return {}
    characters = attributes[6]
    return {
        characters[index][0]: number for index, number in _ISIG_CHARACTERS.items() if characters[index] != b"\0"
    }


def end_of_file_key(master: int) -> bytes:
    """What a person would type to end the input."""
    with suppress(termios.error):
        key: bytes = termios.tcgetattr(master)[6][termios.VEOF]
        return key
    return b"\x04"


def foreground_group(master: int) -> int | None:
    """The process group that the command's terminal signals."""
    try:
        return os.tcgetpgrp(master)
    except OSError:
        return None
