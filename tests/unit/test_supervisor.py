"""The supervisor as its caller, a shell, sees it."""

from __future__ import annotations

import os
import signal

from snapbreaker.supervisor import Lifeline, supervise


def _stops_and_ends(_lifeline: Lifeline) -> int:
    os.kill(os.getpid(), signal.SIGTSTP)
    return 7


def test_a_shell_sees_the_stop_and_can_continue_the_run() -> None:
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os._exit(supervise(_stops_and_ends, lambda _worker: 70))
    try:
        signal.alarm(10)
        _pid, status = os.waitpid(job, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        os.killpg(job, signal.SIGCONT)
        _pid, status = os.waitpid(job, 0)
        assert os.WEXITSTATUS(status) == 7
    finally:
        signal.alarm(0)
        if not os.WIFEXITED(status):
            os.killpg(job, signal.SIGKILL)
