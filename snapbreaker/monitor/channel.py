"""How the command is connected to the world: pipes, or a terminal of its own."""

from __future__ import annotations

import os
import signal
from collections import deque
from contextlib import suppress

from snapbreaker.monitor.spawn import Stdio
from snapbreaker.monitor.streams import CHUNK, Source
from snapbreaker.monitor.terminal import (
    TerminalState,
    copy_size,
    end_of_file_key,
    foreground_group,
    has_controlling_terminal,
    open_pty,
    signal_keys,
)

_TYPED_LIMIT = 64 * 1024


class Channel:
    """Separate pipes for output and errors; our own standard input is the command's.

    With a controlling terminal the command stays in our process group, so that it can talk to the operator through
    the terminal as it could without us (a password prompt), and Ctrl-C reaches both. Without one it gets a group.
    """

    def __init__(self) -> None:
        out, out_write = os.pipe()
        err, err_write = os.pipe()
        self.sources = [Source("stdout", out), Source("stderr", err)]
        self.stdio = Stdio(0, out_write, err_write, own_group=not has_controlling_terminal())
        self.keyboard: Keyboard | None = None
        self._theirs = {out_write, err_write}

    def started(self) -> None:
        """The command has its ends now; ours of them would hide the end of output. Idempotent."""
        for fd in self._theirs:
            os.close(fd)
        self._theirs.clear()

    def attach(self) -> None:
        """The command runs: our terminal serves it until ``close``."""

    def resize(self) -> None:
        """The window of our terminal has another size."""

    def suspend(self, pid: int) -> None:
        """The operator stopped us: stop the command as well."""
        self._signal(pid, signal.SIGSTOP)

    def resume(self, pid: int) -> None:
        self._signal(pid, signal.SIGCONT)

    def interrupt(self, pid: int, number: int) -> None:
        """Pass a signal on to the command (observe mode)."""
        self._signal(pid, number)

    def _signal(self, pid: int, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            if self.stdio.own_group:
                os.killpg(pid, number)
            else:
                os.kill(pid, number)

    def passes_stop(self, pid: int) -> bool:
        """Whether the stop key is the command's own matter (a shell in its terminal, with jobs)."""
        return False

    def close(self) -> None:
        self.started()
        for source in self.sources:
            source.close()


class TerminalChannel(Channel):
    """A pty: one source, and a keyboard. Our terminal is raw from ``attach`` to ``close``."""

    def __init__(self) -> None:
        self.state = TerminalState.save(0)
        self._window = 0 if self.state else None
        self.master, slave = open_pty(self.state)
        self.sources = [Source("pty", self.master)]
        self.stdio = Stdio(slave, slave, slave, terminal=True)
        self.keyboard = Keyboard(0, self.master)
        self._theirs = {slave}

    def attach(self) -> None:
        if self.state:
            self.state.make_raw()

    def resize(self) -> None:
        if self._window is not None:
            copy_size(self._window, self.master)

    def suspend(self, pid: int) -> None:
        """While the shell has our terminal, it is as it was before."""
        super().suspend(pid)
        if self.state:
            self.state.restore()

    def resume(self, pid: int) -> None:
        if self.state:
            self.state.make_raw()
        self.resize()
        super().resume(pid)

    def _signal(self, pid: int, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(foreground_group(self.master) or pid, number)

    def passes_stop(self, pid: int) -> bool:
        return foreground_group(self.master) not in (None, pid)

    def close(self) -> None:
        super().close()
        if self.state:
            self.state.restore()


class Keyboard:
    """What is typed (or piped) into us, on its way to the command's terminal."""

    def __init__(self, fd: int, master: int) -> None:
        self.fd, self._master = fd, master
        self.ended = False
        self._terminal = os.isatty(fd)
        self._typed: deque[bytes] = deque()
        self._waiting = 0
        self._at_line_start = True

    @property
    def full(self) -> bool:
        return self._waiting >= _TYPED_LIMIT

    @property
    def pending(self) -> bool:
        return self._waiting > 0

    def read(self) -> list[int]:
        """Take what was typed; the signals that it means to the command's terminal, in order.

        Keys up to the first such signal are passed on; the key itself is the monitor's to act upon.
        """
        try:
            data = os.read(self.fd, CHUNK)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.ended = True
            if not self._terminal or os.isatty(self.fd):  # a terminal that hung up has not said so
                self._end_input()
            return []
        keys = signal_keys(self._master)
        numbers: list[int] = []
        start = 0
        for at, octet in enumerate(data):
            if octet in keys:
                self._push(data[start:at])
                numbers.append(keys[octet])
                start = at + 1
        self._push(data[start:])
        return numbers

    def _end_input(self) -> None:
        """Within a line the key only hands on what was typed; the second one finds an empty line: termios(3)."""
        key = end_of_file_key(self._master)
        self._push(key if self._at_line_start else key * 2)

    def press(self, number: int) -> None:
        """Type the key of a signal after all."""
        for key, meaning in signal_keys(self._master).items():
            if meaning == number:
                self._push(bytes([key]))

    def _push(self, data: bytes) -> None:
        if data:
            self._at_line_start = data.endswith((b"\n", b"\r"))
            self._typed.append(data)
            self._waiting += len(data)
            self.flush()

    def flush(self) -> None:
        """Type as much as the command's terminal takes now."""
        while self._typed:
            try:
                count = os.write(self._master, self._typed[0])
            except BlockingIOError:
                return
            except OSError:
                count = len(self._typed[0])  # nobody reads any more
            self._waiting -= count
            self._typed[0] = self._typed[0][count:]
            if not self._typed[0]:
                self._typed.popleft()
