"""One verdict over a whole machine: its files, what it says of itself, its processes, and its package manager."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import comparer
from tests.lab.container import descendants
from tests.lab.machine import Machine
from tests.system.facts import Facts, facts, processes, said

INSTALL = ("--env", "DEBIAN_FRONTEND=noninteractive", "--", "apt-get", "install", "-y", "--no-install-recommends")
# What proves that a broken machine is whole again: apt can do its work.
PROBE = "proof-of-apt"


@dataclass(slots=True)
class Judge:
    """What a machine was when this was made; ``undone`` asserts that it is so again."""

    machine: Machine
    files: dict[bytes, comparer.Facts]
    facts: Facts
    processes: list[str]

    @classmethod
    def of(cls, machine: Machine) -> Judge:
        return cls(machine, machine.snapshot(), facts(machine), processes(machine))

    def undone(self, rebooted: bool = False, exclude: Iterable[bytes] = ()) -> None:
        """Nothing differs. ``rebooted``: processes have other command lines by then, and are not compared."""
        excluded = tuple(exclude)
        now = self.machine.snapshot(excluded)
        before = {
            path: one
            for path, one in self.files.items()
            if not any(path == each or path.startswith(each + b"/") for each in excluded)
        }
        assert comparer.differences(before, now) == []
        assert self.facts.differences(facts(self.machine)) == {}
        if not rebooted:
            assert processes(self.machine) == self.processes
        packages_are_sound(self.machine)


def packages_are_sound(machine: Machine) -> None:
    """dpkg has nothing half done, no lock is held, apt finds no broken dependency."""
    assert said(machine, "dpkg", "--audit") == ""
    check = machine.run("apt-get", "check", session=False)
    assert check.returncode == 0, check.stderr


def apt_works(machine: Machine, package: str = PROBE) -> None:
    installed = machine.run("apt-get", "-qq", "-y", "install", package, env={"DEBIAN_FRONTEND": "noninteractive"})
    assert installed.returncode == 0, installed.stderr
    purged = machine.run("apt-get", "-qq", "-y", "purge", package)
    assert purged.returncode == 0, purged.stderr


def until_said(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    """Read what a started command prints until ``text`` is in it; all that was read."""
    assert process.stdout
    read = b""
    while text not in read:
        more = os.read(process.stdout.fileno(), 1 << 16)
        assert more, f"it ended without {text!r}: {read!r} {process.communicate()[1]!r}"
        read += more
    return read


def kill_snapbreaker(machine: Machine, process: subprocess.Popen[bytes]) -> list[int]:
    """SIGKILL worker, supervisor, guardian and helpers at one instant; what they run for somebody lives on."""
    top = machine.pid(process)
    ours = [pid for pid in [top, *descendants(top)] if _is_ours(pid)]
    for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: none sees another one's end
        for pid in ours:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
    deadline = time.monotonic() + 20
    while process.poll() is None:  # su(1) and nsenter(1) stop when their child does, each at its own time
        assert time.monotonic() < deadline, f"{process.args!r} outlived what it ran"
        for pid in (process.pid, *descendants(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)
    return ours


def _is_ours(pid: int) -> bool:
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return any(word.endswith(b"/snapbreaker") for word in words[:3])
    return False


def run(machine: Machine, *packages: str, options: tuple[str, ...] = (), **more: Any) -> Any:
    return machine.snapbreaker("run", *options, *INSTALL, *packages, **more)
