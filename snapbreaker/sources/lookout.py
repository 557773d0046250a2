"""A process that looks out for what the command's output does not tell, since the monitor does nothing but watch.

It follows log files, the journal and the units of systemd, and sends what it sees. Where the monitor does not keep
up it waits: files and journal stay where they are. It ends with the monitor.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn, Self

from snapbreaker.dataclass import dataclass
from snapbreaker.errors import SnapbreakerError, UsageError
from snapbreaker.issue import Issue, IssueType
from snapbreaker.linux import systemd
from snapbreaker.linux.descriptors import close, open_descriptors
from snapbreaker.linux.memory import lock_memory
from snapbreaker.linux.process import die_with_parent
from snapbreaker.sources.messages import CATCH_UP, LONGEST, Kind, Message
from snapbreaker.sources.watch import Watch

CAUGHT_UP = 8.0  # s that the end of a run waits for what was written before it
_IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True, slots=True)
class Sources:
    """``logs``: absolute paths, told. ``quiet``: those of rule packs, judged and recorded only.

    ``journal``: read it, for ``units`` or for those that the run touches. ``enter``: how to come to where the
    command's files are (a sandbox).
    """

    logs: Sequence[str] = ()
    quiet: Sequence[str] = ()
    journal: bool = False
    units: Sequence[str] = ()
    enter: Callable[[], None] | None = None


class Lookout:
    """Use it as a context manager around the run. ``exclude`` is told its pid: it is none of the command's.

    Raises UsageError when a source that was asked for cannot be read.
    """

    def __init__(self, sources: Sources, exclude: Callable[[int], None]) -> None:
        self._sources, self._exclude = sources, exclude
        self._pid = self.fd = -1
        self.gone = False
        self._told_all = False
        self._asked_at: float | None = None

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
        try:
            self._pid = os.fork()
            if self._pid == 0:
                _be_lookout(self._sources, theirs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            theirs.close()
        self._socket, self.fd = ours, ours.fileno()
        self._exclude(self._pid)
        first = ours.recv(LONGEST)  # it follows everything from here on
        if not first or Message.unpacked(first).kind is Kind.WARNING:
            why = Message.unpacked(first).data.decode() if first else "the process that follows logs has died"
            self.__exit__()
            raise UsageError(why)
        ours.setblocking(False)
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self._socket.close()

    def take(self) -> Message | None:
        """The next of what it has told; None when there is no more now."""
        try:
            packet = self._socket.recv(LONGEST)
        except BlockingIOError:
            return None
        except OSError:
            packet = b""
        if not packet:
            self.gone = True
            died = "the process that follows logs and units has died"
            return Message.of_issue(Issue(IssueType.INTERRUPTED, died, "lookout", time=time.time()))
        message = Message.unpacked(packet)
        self._told_all = self._told_all or message.kind is Kind.CAUGHT_UP
        return message

    def catch_up(self) -> None:
        """The command has ended: have it tell what was written until now. Idempotent."""
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            with suppress(OSError):
                self._socket.send(CATCH_UP)

    @property
    def caught_up(self) -> bool:
        """Whether it has, or is not to be waited for any longer."""
        return self.gone or self._told_all or self.gave_up

    @property
    def gave_up(self) -> bool:
        waited = 0.0 if self._asked_at is None else time.monotonic() - self._asked_at
        return waited >= CAUGHT_UP and not self._told_all

    def deadline(self) -> float | None:
        """Monotonic time until which to wait for that."""
        return None if self._asked_at is None or self.caught_up else self._asked_at + CAUGHT_UP


def _be_lookout(sources: Sources, channel: socket.socket) -> NoReturn:
    try:
        die_with_parent(signal.SIGKILL)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        inherited = open_descriptors() - {channel.fileno()}
        os.setsid()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -20)
        try:
            watch = Watch(channel)
            watch.open(sources.journal, sources.units, units=sources.enter is None and _has_systemd())
            if sources.enter is not None:
                sources.enter()
            elif sources.journal and not sources.units and not watch.knows_units:
                raise UsageError("--journal: nobody tells which units the run touches", "name them: --unit UNIT")
            watch.follow(sources.logs, sources.quiet)
            close(inherited)
        except (OSError, SnapbreakerError) as error:
            why = str(error) if isinstance(error, SnapbreakerError) else f"the journal cannot be read: {error}"
            channel.send(Message.warning(why).packed())
            os._exit(1)
        lock_memory()
        channel.send(Message(Kind.CAUGHT_UP).packed())
        watch.serve()
    except Exception as error:
        died = f"the process that follows logs and units has died: {error!r}"
        channel.send(Message.of_issue(Issue(IssueType.INTERRUPTED, died, "lookout", time=time.time())).packed())
    finally:
        os._exit(0)


def _has_systemd() -> bool:
    return os.geteuid() == 0 and systemd.booted() and os.path.exists(systemd.SOCKET)
