"""Three processes, each of which can finish what another one began.

The *worker* does the run. Its parent, the *supervisor*, does nothing but wait: when the worker dies (SIGKILL, OOM
killer, a bug), it kills the command's processes and rolls back. When the supervisor dies, the worker sees that
at once through a pidfd, and does the same. When both die (``kill -9 -GROUP``, ``timeout -s KILL``), the *guardian*
does it, which is in a session of its own. All have everything loaded and locked in memory. Orphans of a dead
worker come to the supervisor, since both are child subreapers (PR_SET_CHILD_SUBREAPER, prctl(2)).
"""

from __future__ import annotations

import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from snapbreaker.checkpoint.owner import Owner
from snapbreaker.dataclass import dataclass
from snapbreaker.exits import Exit
from snapbreaker.linux.memory import lock_memory
from snapbreaker.linux.process import become_subreaper
from snapbreaker.monitor.terminal import TerminalState
from snapbreaker.voice import Voice

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class HandOver(Exception):
    """What the worker cannot bring to an end: its supervisor takes over."""


@dataclass(frozen=True, slots=True)
class Lifeline:
    """What the worker knows of its supervisor: a pidfd that polls readable when it is dead."""

    supervisor_fd: int
    owners: tuple[Owner, Owner]  # worker, supervisor


def supervise(work: Callable[[Lifeline], int], rescue: Callable[[int], int]) -> int:
    """Run ``work`` in a child; the exit code of the whole.

    ``work`` returns an exit code. If its process ends in any other way than by that, ``rescue`` is called here
    with the dead worker's pid, and what it returns counts.
    """
    terminal = TerminalState.save()
    become_subreaper()
    _flush()
    verdict, said = os.pipe()
    supervisor = os.getpid()
    worker = os.fork()
    if worker == 0:
        os.close(verdict)
        _be_worker(work, supervisor, said)
    os.close(said)
    guardian = _start_guardian(worker, rescue)
    try:
        lock_memory()
        _forward_signals(worker)
        status = _wait(worker)
        code = os.read(verdict, 16)
        os.close(verdict)
        return int(code) if code else _take_over(worker, status, terminal, rescue)
    finally:
        # Before we end ourselves: it shares the lock, and would look for something to finish.
        os.kill(guardian, signal.SIGKILL)
        os.waitpid(guardian, 0)


def _take_over(worker: int, status: int, terminal: TerminalState | None, rescue: Callable[[int], int]) -> int:
    if terminal is not None:
        terminal.restore()
    how = f"signal {-status}" if status < 0 else f"status {status}"
    Voice(sys.stderr).write(f"snapbreaker: the worker process died ({how}); its supervisor takes over\n")
    return rescue(worker)


def _start_guardian(worker: int, rescue: Callable[[int], int]) -> int:
    """Fork the process that finishes the run when neither of the others can; returns its pid."""
    others = [os.pidfd_open(worker), os.pidfd_open(os.getpid())]
    guardian = os.fork()
    if guardian == 0:
        try:
            os.setsid()
            for number in FORWARDED:
                signal.signal(number, signal.SIG_IGN)
            lock_memory()
            for fd in others:
                select.select([fd], [], [])
            rescue(worker)
        except BaseException:
            with suppress(OSError):
                traceback.print_exc()
        finally:
            _flush()
            os._exit(Exit.OK)
    for fd in others:
        os.close(fd)
    return guardian


def _be_worker(work: Callable[[Lifeline], int], supervisor: int, said: int) -> None:
    """Never returns. The exit code is written to ``said`` only when ``work`` came to its own end."""
    code: int | None = None
    try:
        become_subreaper()
        pidfd = os.pidfd_open(supervisor)
        code = work(Lifeline(pidfd, (Owner.of(os.getpid()), Owner.of(supervisor))))
    except HandOver as error:
        Voice(sys.stderr).write(f"snapbreaker: {error}\n")
    except BaseException:
        with suppress(OSError):
            traceback.print_exc()
    finally:
        _flush()
        if code is not None:
            os.write(said, b"%d" % code)
        os._exit(Exit.INTERNAL if code is None else code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()


def _forward_signals(worker: int) -> None:
    """What is sent to the supervisor alone is meant for the run. Ctrl-Z the worker obeys first, see ``_wait``."""

    def forward(number: int, _frame: FrameType | None) -> None:
        try:
            os.kill(worker, number)
        except ProcessLookupError:
            return

    for number in FORWARDED:
        signal.signal(number, forward)
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)


def _wait(worker: int) -> int:
    """Exit status of ``worker``, negative for a signal. Other children are orphans of the run: left alone here.

    They are reaped by the rescue's kill, or by init after us. When the worker stops for Ctrl-Z we stop as well,
    since it is us whom the shell waits for; it continues the whole process group.
    """
    while True:
        _pid, status = os.waitpid(worker, os.WUNTRACED)
        if os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGTSTP:
            os.kill(os.getpid(), signal.SIGSTOP)
        if os.WIFEXITED(status):
            return os.WEXITSTATUS(status)
        if os.WIFSIGNALED(status):
            return -os.WTERMSIG(status)
