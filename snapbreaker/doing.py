"""What one process was at when its run was halted for silence, or for time."""

from __future__ import annotations

from snapbreaker.dataclass import dataclass

STATES = {
    "R": "runs",
    "S": "sleeps",
    "D": "cannot be interrupted",
    "T": "is stopped",
    "t": "is stopped by a tracer",
    "Z": "has ended, and its parent does not collect it",
}


@dataclass(frozen=True, slots=True)
class Doing:
    """``depth``: how far below the command. ``command``: its command line. ``state`` is the letter of
    proc_pid_stat(5), ``wchan`` the kernel's function (proc_pid_wchan(5)), ``waits`` what for, in words; empty
    where that is not known.
    """

    pid: int
    parent: int
    depth: int
    command: str
    state: str
    wchan: str = ""
    waits: str = ""

    @property
    def how(self) -> str:
        """``sleeps, waiting for input from the terminal /dev/pts/0 (n_tty_read)``."""
        text = STATES.get(self.state, f"is in state {self.state}")
        text += f", waiting for {self.waits}" if self.waits else ""
        return text + (f" ({self.wchan})" if self.wchan else "")
