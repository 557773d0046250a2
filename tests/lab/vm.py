"""A whole Debian with a kernel of its own, whichever runs it (``uml.py``, ``qemu.py``).

vm = Uml.create(session)
vm.boot()                                     # "running"
vm.run("uname", "-r")
vm.power_cut()
vm.boot()
vm.close()

It has one processor and no network. Commands travel as files (``tests/lab/vm_agent.py``). All its processes are in
one cgroup, so nothing outlives a test session, also one that was killed (``tests/lab/sessions.py``).
"""

from __future__ import annotations

import abc
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.lab import bundle, cgroups
from tests.lab.container import ENVIRONMENT, KEEPER
from tests.lab.errors import LabError

AGENT = Path(__file__).with_name("vm_agent.py")
PROGRAM = "/usr/local/bin/snapbreaker"
START = 'echo 0 >"$1" && shift && exec "$@"'
PUT = 'install -D -m "$1" /run/lab/put "$2" && sync -f "$2"'
BOOT_TIMEOUT, HALT_TIMEOUT, KILL_TIMEOUT = 120.0, 60.0, 20.0  # seconds; a boot takes 10 on an idle machine
WHY = """systemctl list-units --failed --plain --no-legend | while read -r unit rest; do
echo "$unit $rest"; journalctl -b -n 20 -u "$unit"; done; journalctl -b -q -p warning -n 40"""
PAUSE = 0.01
_numbers = itertools.count(1)

Word = str | bytes | Path


@dataclass(slots=True)
class Vm(abc.ABC):
    """``disks`` are raw images; ``root`` is the name there of one of them, or of what ``initrd`` mounts.

    LabError, never AssertionError, says that the VM did not boot, died or hangs.
    """

    name: str
    session: Path
    disks: list[Path]
    root: str = ""
    initrd: Path | None = None
    arguments: Sequence[str] = ()
    memory: str = "768M"
    cgroup: Path | None = None
    kernel: subprocess.Popen[bytes] | None = None
    helpers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    commands: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @staticmethod
    @abc.abstractmethod
    def missing() -> str:
        """What keeps this machine from running such VMs, with the remedy; empty when nothing does."""

    @staticmethod
    @abc.abstractmethod
    def golden() -> Path:
        """The image of an ext4 that such a VM boots (``tests/lab/vm_image.py``)."""

    @abc.abstractmethod
    def _power_on(self) -> subprocess.Popen[bytes]:
        """Start the kernel by ``_spawn``: ``share`` is to be at ``/run/lab``, the console on standard output."""

    @classmethod
    def create(cls, session: Path, image: Path | None = None, disks: Sequence[Path] = (), **more: Any) -> Self:
        """A VM that was never booted, on a copy of ``image`` (``golden()``) and on ``disks`` themselves.

        It all lives in the directory of the test session (``sessions.open_session()``).
        """
        name = f"vm-{next(_numbers)}"
        root = session / f"{name}.img"
        subprocess.run(["cp", "--sparse=always", image or cls.golden(), root], check=True)
        made = cls(name, session, [root, *disks], **more)
        made.share.mkdir()
        return made

    @property
    def share(self) -> Path:
        """The directory that both sides see; ``/run/lab`` there."""
        return self.session / self.name

    @property
    def alive(self) -> bool:
        return self.kernel is not None and self.kernel.poll() is None

    def boot(self, tries: int = 2) -> str:
        """Boot, and return systemd's state when it has settled: ``running``, ``degraded`` …

        A boot that dies or hangs is tried once more, then LabError with the end of the console. Why it is not
        ``running`` is printed.
        """
        if self.alive:
            raise LabError(f"{self.name} is booted already")
        try:
            state = self._boot()
        except LabError:
            if tries < 2:
                raise
            state = self._boot()
        if state != "running":
            print(state, self.run("sh", "-c", WHY).stdout)
        return state

    def run(
        self,
        *argv: Word,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        cwd: str = "/root",
        input: bytes = b"",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command and wait; whatever its exit code, the result is returned.

        AssertionError when it still ran after ``timeout`` seconds and could be killed; LabError when not.
        """
        return self.wait(self.start(*argv, env=env, cwd=cwd, input=input), timeout)

    def start(
        self, *argv: Word, env: Mapping[str, str] | None = None, cwd: str = "/root", input: bytes = b""
    ) -> str:
        """The same without waiting: the command's number, for ``wait`` and ``kill``."""
        if not self.alive:
            raise LabError(f"{self.name} is not running; console:\n{self.console()[-2000:]}")
        number = f"{next(self.commands):06}"
        if input:
            (self.share / f"{number}.stdin").write_bytes(input)
        words = [os.fsdecode(word) for word in argv]
        request = {"argv": words, "env": {**ENVIRONMENT, **(env or {})}, "cwd": cwd}
        self._publish(f"{number}.request", json.dumps(request))
        return number

    def wait(self, number: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        if not self._appears(f"{number}.status", timeout):
            self.kill(number)
            if not self._appears(f"{number}.status", KILL_TIMEOUT):
                raise LabError(f"{self.name} hangs: a command could not be killed; {self._said(number)}")
            raise AssertionError(f"still ran after {timeout} s: {self._said(number)}")
        status = int((self.share / f"{number}.status").read_text())
        stdout, stderr = self._output(number, "stdout"), self._output(number, "stderr")
        return subprocess.CompletedProcess((), status, stdout, stderr)

    def kill(self, number: str) -> None:
        """SIGKILL a command with all that it started, except what left its cgroup."""
        self._publish(f"{number}.kill", "")

    def put(self, content: bytes | Path, path: str, mode: int = 0o644) -> str:
        """Write a file there, from bytes or a file of the host, and sync it; returns ``path``."""
        source = self.share / "put"
        source.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        done = self.run("sh", "-c", PUT, "put", f"{mode:o}", path)
        if done.returncode:
            raise LabError(f"{path} could not be written: {done.stderr}")
        return path

    def put_snapbreaker(self) -> None:
        """The bundle of the working tree becomes ``/usr/local/bin/snapbreaker``."""
        self.put(bundle.path(), PROGRAM, 0o755)

    def snapbreaker(self, *arguments: Word, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run("snapbreaker", *arguments, **options)

    def power_cut(self) -> None:
        """SIGKILL the kernel with all its processes at once. What it had handed to the disks is on them."""
        cgroup, self.cgroup = self.cgroup, None
        if cgroup:
            cgroups.kill(cgroup)
            cgroups.remove(cgroup)
        for process in (self.kernel, *self.helpers):
            if process:
                process.communicate()
        self.kernel, self.helpers = None, []

    def power_off(self) -> None:
        """As ``systemctl poweroff`` does it; LabError when it does not end by it."""
        self.start("systemctl", "poweroff", "--no-block")
        assert self.kernel
        try:
            self.kernel.wait(HALT_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name}: no power off within {HALT_TIMEOUT:.0f} s") from None
        finally:
            self.power_cut()

    def close(self) -> None:
        """Power cut, and remove its disks and files."""
        self.power_cut()
        for disk in self.disks:
            disk.unlink(missing_ok=True)
        shutil.rmtree(self.share, ignore_errors=True)
        for left in self.session.glob(f"{self.name}.*"):
            left.unlink()

    def console(self) -> str:
        """What the last boot printed."""
        return self._console.read_text(errors="replace") if self._console.exists() else ""

    @property
    def _console(self) -> Path:
        return self.session / f"{self.name}.console"

    def _boot(self) -> str:
        self.power_cut()
        shutil.rmtree(self.share)
        self.share.mkdir()
        shutil.copyfile(AGENT, self.share / "agent.py")
        self._make_cgroup()
        try:
            self.kernel = self._power_on()
            if not self._appears("up", BOOT_TIMEOUT):
                said = self.console()[-2000:]
                raise LabError(f"{self.name} is not up after {BOOT_TIMEOUT:.0f} s; console:\n{said}")
        except LabError:
            self.power_cut()
            raise
        return (self.share / "up").read_text()

    def _make_cgroup(self) -> None:
        """For all processes of one boot. It is killed when this process ends, however that is."""
        self.cgroup = cgroups.create(f"{self.session.name}.{self.name}")
        keeper = subprocess.Popen(
            ["sh", "-c", KEEPER, "keeper", self.cgroup],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.helpers.append(keeper)
        self._console.unlink(missing_ok=True)

    def _spawn(self, *argv: str | Path, preload: str = "", fds: Sequence[int] = ()) -> subprocess.Popen[bytes]:
        """Start a process in the cgroup; it prints to the console."""
        assert self.cgroup
        enter = ["sh", "-c", START, "start", str(self.cgroup / "cgroup.procs")]
        with self._console.open("ab") as console:
            return subprocess.Popen(
                [*enter, *(["env", f"LD_PRELOAD={preload}"] if preload else []), *argv],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**ENVIRONMENT, "HOME": str(self.share), "TMPDIR": str(self.session)},
                start_new_session=True,
                pass_fds=fds,
            )

    def _appears(self, name: str, timeout: float) -> bool:
        """Wait for a file of the agent; LabError when the VM dies meanwhile."""
        deadline = time.monotonic() + timeout
        while not (self.share / name).exists():
            if not self.alive:
                raise LabError(f"{self.name} died; console:\n{self.console()[-2000:]}")
            if time.monotonic() > deadline:
                return False
            time.sleep(PAUSE)
        return True

    def _publish(self, name: str, text: str) -> None:
        new = self.share / f"{name}.new"
        new.write_text(text)
        new.rename(self.share / name)

    def _output(self, number: str, name: str) -> str:
        file = self.share / f"{number}.{name}"
        return file.read_text(errors="surrogateescape") if file.exists() else ""

    def _said(self, number: str) -> str:
        return self._output(number, "stdout") + self._output(number, "stderr")
