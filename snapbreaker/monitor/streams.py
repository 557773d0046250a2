"""Output on its way: sources that are read without waiting, relays that are written without waiting."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import stat
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

CHUNK = 64 * 1024
_FLOOD = 1024  # octets that a terminal gives in one go when there is more to come
_BREATH, _BREATHS = 1, 16  # ms in which it is filled again, and how often it is waited for
_ERASE = b"\r\x1b[K"  # the line that the cursor is in (console_codes(4), EL)
_GONE = {errno.EPIPE, errno.EIO, errno.ECONNRESET}
LIMIT = 256 * 1024  # octets waiting in a relay; from then on its source is not read, so the command has to wait


def fill_standard_descriptors() -> None:
    """Open /dev/null for those of 0, 1, 2 that our caller closed, before another file gets such a number."""
    while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


class Source:
    """The reading end of one stream of the command, on a file description of our own."""

    def __init__(self, name: str, fd: int) -> None:
        self.name, self.fd = name, fd
        self.octets = 0
        self.filled = False  # the last piece was a full one: there is more
        self.ended = False
        self._terminal = os.isatty(fd)
        self._buffer = memoryview(bytearray(CHUNK if self._terminal else 0))
        self._more = select.poll()
        self._more.register(fd, select.POLLIN)
        os.set_blocking(fd, False)

    def read(self) -> bytes:
        """What is there now, at most CHUNK; empty when nothing is, or at the end (``ended``)."""
        data = self._gathered() if self._terminal else self._piece()
        self.ended = data == b""
        self.filled = data is not None and len(data) == CHUNK
        self.octets += len(data or b"")
        return data or b""

    def _piece(self) -> bytes | None:
        """None: nothing is there yet."""
        try:
            return os.read(self.fd, CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _gathered(self) -> bytes | None:
        """A terminal gives 4 KiB at a time (n_tty.c) and then nothing, until a thread of the kernel has filled it
        again. In a flood that is waited for: each piece would cost as much as a long one.
        """
        size = breaths = 0
        while size < CHUNK:
            try:
                count = os.readv(self.fd, [self._buffer[size:]])
            except BlockingIOError:
                if size < _FLOOD or breaths == _BREATHS:
                    break
                breaths += 1
                if not self._more.poll(_BREATH):
                    break
                continue
            except OSError:  # EIO: the last process closed its terminal
                count = 0
            if not count:
                return bytes(self._buffer[:size])
            size += count
        return bytes(self._buffer[:size]) or None

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self.ended = True


class Relay:
    """Hands octets on to one of our own descriptors, in order, without ever waiting for its reader.

    Descriptors 1 and 2 are shared with other processes, so O_NONBLOCK must not be set on them: pipes and terminals
    are opened again through /proc/self/fd, which makes a file description of our own; sockets are sent to with
    MSG_DONTWAIT; to other files a write does not wait. When nobody reads any more, octets are dropped and counted.
    ``encode(source, data)`` says what is written for some output (JSON events); None: the octets as they are.
    ``detach``: the reader is there but does not read, and the command waits no longer for it.
    """

    def __init__(self, fd: int, encode: Callable[[str, bytes], bytes] | None = None) -> None:
        self.dropped = 0
        self.pending = 0
        self.gone = self.detached = False
        self.lost = 0  # the signal that means that our reader is gone: SIGHUP of a terminal, SIGPIPE of others
        self.moved_at = time.monotonic()  # when it took something, or began to have to
        self._last = b"\n"  # the last octet that was put
        self._drawn = False
        self._encode = encode
        self._queue: deque[memoryview] = deque()
        self._socket: socket.socket | None = None
        self._limit = CHUNK
        self._begun = False  # the first block is written in part
        self._terminal = os.isatty(fd)
        self.fd = self._open(fd)

    def _open(self, fd: int) -> int:
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
            return self._socket.fileno()
        if stat.S_ISFIFO(mode) or os.isatty(fd):
            with suppress(OSError):
                return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            # Not allowed to open it (another user's terminal). A ready pipe takes this much: pipe(7), PIPE_BUF.
            self._limit = select.PIPE_BUF
        return os.dup(fd)

    @property
    def at_line_start(self) -> bool:
        return self._last in (b"\n", b"\r")

    @property
    def is_idle(self) -> bool:
        """Whether everything was taken, and the next line is still empty."""
        return self._last == b"\n" and not (self.pending or self.gone or self.detached)

    @property
    def full(self) -> bool:
        return self.pending >= LIMIT

    def output(self, source: str, data: bytes) -> None:
        """Queue output of the command, and write what can be written now."""
        if self.gone or self.detached:
            self.dropped += len(data)
        else:
            self.put(self._encode(source, data) if self._encode else data)

    def tell(self, source: str, data: bytes, text: bytes) -> None:
        """Queue what another source said: as events, or ``text``, lines of their own."""
        if self._encode:
            self.output(source, data)
        elif text:
            self.output(source, text if self.at_line_start else b"\r\n" + text)

    def put(self, data: bytes) -> None:
        if self.gone:
            self.dropped += len(data)
            return
        if not data:
            return
        self.wipe()
        self._last = data[-1:]
        self._push(data)

    def draw(self, text: bytes) -> None:
        """Show ``text``, shorter than a line of the terminal, in the place of the next output until that comes."""
        if self.is_idle:
            self._push(_ERASE + text + b"\r")
            self._drawn = bool(text)

    def wipe(self) -> None:
        """Take away what was drawn."""
        if self._drawn:
            self._drawn = False
            self._push(_ERASE)

    def _push(self, data: bytes) -> None:
        if not self._queue:
            self.moved_at = time.monotonic()
        self._queue.append(memoryview(data))
        self.pending += len(data)
        self.flush()

    def flush(self) -> bool:
        """Write what the reader takes now; whether it took anything."""
        moved = False
        while self._queue and self._is_ready():
            block = self._queue[0]
            try:
                count = self._write(block[: self._limit])
            except BlockingIOError:
                break
            except OSError as error:  # EPIPE, EIO (hung up), ENOSPC: nothing more can be written
                self.hang_up() if error.errno in _GONE else self._give_up()
                break
            moved = moved or count > 0
            self.pending -= count
            self._queue[0] = block[count:]
            self._begun = bool(self._queue[0])
            if not self._begun:
                self._queue.popleft()
        if moved:
            self.moved_at = time.monotonic()
        return moved

    def hang_up(self) -> None:
        """The reader is gone."""
        if not self.gone:
            self.lost = signal.SIGHUP if self._terminal else signal.SIGPIPE
            self._give_up()

    def detach(self) -> None:
        """Drop what waits, but for the rest of an event that was begun, and all output from now on."""
        self.detached = True
        kept = [self._queue[0]] if self._begun and self._encode else []
        rest = sum(map(len, kept))
        self.dropped += self.pending - rest
        self._queue, self.pending = deque(kept), rest

    def finish(self, patience: float) -> None:
        """Write all of it, until the reader has taken nothing for ``patience`` seconds; drop the rest.

        One that was given up is not waited for again.
        """
        patience = 0 if self.detached else patience
        while self._queue:
            if not self.flush() and self._queue and not self._wait(patience):
                self.detach()
                break

    def close(self) -> None:
        self._give_up()
        if self._socket:
            self._socket.close()
        elif self.fd >= 0:
            os.close(self.fd)
        self._socket, self.fd = None, -1

    def _write(self, block: memoryview) -> int:
        if self._socket:
            return self._socket.send(block, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        return os.write(self.fd, block)

    def _is_ready(self) -> bool:
        return self._limit == CHUNK or self._wait(0)

    def _wait(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))

    def _give_up(self) -> None:
        self.gone = True
        self.dropped += self.pending
        self.pending = 0
        self._queue.clear()


def standard_relays() -> dict[str, Relay]:
    """From the command's streams to ours. Where both of ours are one pipe or terminal, one keeps the order."""
    out = Relay(1)
    one, two = os.fstat(1), os.fstat(2)
    same = (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino) and not stat.S_ISREG(one.st_mode)
    return {"stdout": out, "stderr": out if same else Relay(2), "pty": out}
