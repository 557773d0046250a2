"""A booted Debian with systemd as PID 1 and a root on a real ext4, xfs or btrfs, as users have it.

machine = Machine.create("btrfs", session)
machine.boot()                                # "running"
machine.run("systemctl", "is-active", "dbus")
machine.close()
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import comparer
from tests.lab import bundle, cgroups, container, disk
from tests.lab.container import Container, Word, descendants, login
from tests.lab.errors import LabError

PROGRAM = "usr/local/bin/snapbreaker"
# What a machine that nobody uses changes by itself, and what is no part of its state (hier(7)).
KEPT = (
    *(b"dev", b"proc", b"run", b"sys", b"tmp", b"var/tmp"),
    b"var/log",  # wtmp, lastlog and logs of services: each boot and each login
    b"var/lib/snapbreaker",  # its own records
    *(b"root/.bash_history", b"root/.lesshst", b"root/.python_history"),
)
_numbers = itertools.count(1)


@dataclass(slots=True)
class Machine:
    """``root`` is the machine's root seen from outside, whether it is booted or not.

    It is mounted anew at each boot and at each end: a test holds nothing open there meanwhile.
    """

    name: str
    disk: disk.Disk
    session: Path
    container: Container | None = None
    started: dict[subprocess.Popen[bytes], bool] = field(default_factory=dict)

    @staticmethod
    def missing(fstype: str) -> str:
        """What keeps this machine from having such machines, with the remedy; empty when nothing does."""
        return disk.missing(fstype) or cgroups.missing()

    @classmethod
    def create(cls, fstype: str, session: Path, name: str = "") -> Machine:
        """A machine that was never booted, in the directory of the test session (``sessions.open_session()``)."""
        name = name or f"machine-{fstype}-{next(_numbers)}"
        made = cls(name, disk.copy(fstype, session, name), session)
        shutil.copyfile(bundle.path(), made.root / PROGRAM)
        (made.root / PROGRAM).chmod(0o755)
        return made

    @property
    def root(self) -> Path:
        return self.disk.path

    @property
    def fstype(self) -> str:
        return self.disk.fstype

    @property
    def running(self) -> bool:
        return self.container is not None and self.container.alive

    def boot(self, before_init: Sequence[Path | str] = ()) -> str:
        """Boot, and wait until the state has settled, which is returned: ``running``, ``degraded`` …

        ``before_init`` are programs of the host which an initramfs would run: the root is mounted read-write at
        ``$rootmnt``, its device is ``$ROOT`` (initramfs-tools(7)). One that fails does not keep it from booting.
        LabError with the end of the console when init does not start.
        """
        if self.running:
            raise LabError(f"{self.name} is booted already")
        self.stop()
        self.disk.remount()
        cgroup = f"{self.session.name}.{self.name}"
        mount = self.disk.mount_arguments
        self.container = container.start(cgroup, self.root, mount, self._console, before_init)
        try:
            state = container.settle(self.container)
        except LabError as error:
            said = self.console()[-2000:]
            self.crash()
            raise LabError(f"{self.name}: {error}; console:\n{said}") from None
        if before_init:
            self.disk.remount()  # one of them may have put another subvolume there
        return state

    def stop(self) -> None:
        """Halt as systemd does it. Fine when the machine has ended by itself (``systemctl poweroff``)."""
        if self.container:
            try:
                self.container.halt(self.started)
            finally:
                self._ended()

    def crash(self) -> None:
        """SIGKILL PID 1 and everything else at once. What they had written is in the filesystem."""
        if self.container:
            self.container.kill(self.started)
            self._ended()

    def reboot(self) -> str:
        self.stop()
        return self.boot()

    def close(self) -> list[str]:
        """Give everything back. Returns processes of the host that still used the root, and were killed."""
        if self.container:
            self.container.kill(self.started)
            self.container = None
        self._collect()
        self._console.unlink(missing_ok=True)
        return self.disk.close()

    def run(
        self,
        *argv: Word,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        session: bool = True,
        input: bytes = b"",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine and wait; whatever its exit code, the result is returned.

        ``session``: as root's login (su(1), with a session scope of logind); False: in a cgroup that is no
        session and no unit. A signal that ended it is 128 + n in a session, else -n.
        """
        process = self.start(*argv, env=env, session=session, stdin=subprocess.PIPE)
        try:
            stdout, stderr = process.communicate(input, timeout=timeout)
        except subprocess.TimeoutExpired:
            _kill(process)
            stdout, stderr = process.communicate()
            said = (stdout + stderr).decode(errors="replace")
            raise AssertionError(f"{argv!r} still ran after {timeout} s:\n{said}") from None
        del self.started[process]
        return subprocess.CompletedProcess(argv, process.returncode, _text(stdout), _text(stderr))

    def start(
        self,
        *argv: Word,
        env: Mapping[str, str] | None = None,
        session: bool = True,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """The same without waiting. To signal the command itself see ``signal``."""
        if not self.container or not self.container.alive:
            raise LabError(f"{self.name} is not booted")
        process = subprocess.Popen(
            self.container.argv(login(argv, env) if session else argv),
            env=container.environment(None if session else env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
        self.started[process] = session
        return process

    def pid(self, process: subprocess.Popen[bytes]) -> int:
        """The pid, outside, of the command that ``start`` started."""
        depth = 2 if self.started[process] else 1  # below nsenter(1), and su(1) in a session
        deadline = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < deadline:
            below = descendants(process.pid)
            if len(below) >= depth:
                return below[depth - 1]
            time.sleep(0.002)
        raise LabError(f"{process.args!r} does not run")

    def signal(self, process: subprocess.Popen[bytes], number: int) -> None:
        """Send a signal to the command that ``start`` started, and to none of the processes around it."""
        os.kill(self.pid(process), number)

    def snapbreaker(self, *arguments: Word, **options: Any) -> subprocess.CompletedProcess[str]:
        """``run`` of the bundle, which is ``/usr/local/bin/snapbreaker`` there."""
        return self.run("snapbreaker", *arguments, **options)

    def snapshot(self, exclude: Iterable[bytes] = ()) -> dict[bytes, comparer.Facts]:
        """What the independent judge sees of the root, except for ``KEPT`` and ``exclude``."""
        return comparer.snapshot(self.root, exclude=[*KEPT, *exclude])

    def top_level(self) -> AbstractContextManager[Path]:
        """The top level of a btrfs, mounted on the host for a while."""
        return self.disk.top_level()

    def console(self) -> str:
        """What the last boot printed, also before init."""
        said = self._console.read_bytes() if self._console.exists() else b""
        return said.replace(b"\r", b"").decode(errors="replace")

    @property
    def _console(self) -> Path:
        return self.session / f"{self.name}.console"

    def _ended(self) -> None:
        self.container = None
        self.disk.remount()

    def _collect(self) -> None:
        """Commands that nobody waited for: they have ended with the machine."""
        for process in self.started:
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()
        self.started.clear()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The command, not nsenter(1), which ends by that: it has to reap what it runs, or the machine cannot end."""
    for _ in range(100):
        for pid in descendants(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.send_signal(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
            return
    process.kill()


def _text(output: bytes) -> str:
    return output.decode(errors="surrogateescape")
