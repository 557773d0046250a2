"""One boot of a root filesystem: namespaces, a cgroup, and /sbin/init as PID 1 (unshare(1), pivot_root(2))."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab import cgroups
from tests.lab.errors import LabError

STAGE = Path(__file__).with_name("stage.sh")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}
NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--cgroup")
# The pid namespace comes first, by a process outside of the cgroup: all that is in the cgroup is in the container.
START = 'echo 0 >"$1" && shift && exec unshare "$@"'
ENTER = 'echo 0 >"$1" && shift && exec nsenter "$@"'
# It outlives the test process by this one line, also one that is killed.
KEEPER = 'read -r line; echo 1 >"$1/cgroup.kill"'
# Commands that belong to no session are here, beside systemd's own slices.
EXEC = "lab-exec"
BOOT_TIMEOUT = HALT_TIMEOUT = KILL_TIMEOUT = 60.0  # seconds

Word = str | bytes | Path


@dataclass(frozen=True, slots=True)
class Container:
    """A running container. ``init`` is the pid of its PID 1 outside."""

    cgroup: Path
    init: int
    unshare: subprocess.Popen[bytes]
    helpers: tuple[subprocess.Popen[bytes], ...]

    @property
    def alive(self) -> bool:
        return self.unshare.poll() is None

    def argv(self, command: Sequence[Word]) -> list[Word]:
        """What runs ``command`` in all namespaces of PID 1 and in a cgroup of the container."""
        target = ("--target", str(self.init))
        procs = str(self.cgroup / EXEC / "cgroup.procs")
        enter = ["sh", "-c", ENTER, "enter", procs, *target, *NAMESPACES, "--root", "--wd", "--", *command]
        return ["nsenter", *target, "--pid", "--", *enter]

    def systemctl(self, *words: str, timeout: float) -> str:
        """What ``systemctl`` prints; its exit code is 1 when the state is not ``running``."""
        argv = self.argv(["systemctl", *words])
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            env=ENVIRONMENT,
        )
        return done.stdout.decode(errors="replace").strip()

    def halt(self, entered: Collection[subprocess.Popen[bytes]] = ()) -> None:
        """What systemd does at halt (systemd(1), SIGRTMIN+3); LabError when it does not end by it."""
        self._signal(signal.SIGRTMIN + 3)
        halted = self._end(entered, HALT_TIMEOUT)
        self.kill(entered)
        if not halted:
            raise LabError(f"no halt within {HALT_TIMEOUT:.0f} s")

    def kill(self, entered: Collection[subprocess.Popen[bytes]] = ()) -> None:
        """SIGKILL everything in it, wait, and remove what is left of it.

        ``entered`` are processes of ``argv`` that nobody has waited for.
        """
        self._signal(signal.SIGKILL)  # it may still be on its way into the cgroup
        cgroups.kill(self.cgroup)
        if not self._end(entered, KILL_TIMEOUT):
            raise LabError(f"PID 1 is not dead after {KILL_TIMEOUT:.0f} s")
        cgroups.remove(self.cgroup)
        for helper in self.helpers:
            helper.communicate()

    def _end(self, entered: Collection[subprocess.Popen[bytes]], timeout: float) -> bool:
        """Wait for the end of PID 1, which waits for all of its namespace to be reaped (pid_namespaces(7)).

        The one that an nsenter(1) outside runs is reaped by that, which stops itself when its child is stopped.
        """
        deadline = time.monotonic() + timeout
        while self.alive:
            if time.monotonic() > deadline:
                return False
            for process in entered:
                process.send_signal(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.unshare.wait(0.1)
        return True

    def _signal(self, number: int) -> None:
        """To PID 1, whose pid is its own as long as unshare has not ended."""
        if self.init and self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.init, number)


def start(
    cgroup_name: str, root: Path, mount: Sequence[str], console: Path, hooks: Sequence[Path | str] = ()
) -> Container:
    """Start ``/sbin/init``; ``mount`` is the device, the filesystem's type and the options.

    It is mounted at ``root``, in the container's own mount namespace, and ``hooks`` see it there. ``console`` is
    the file that gets what the hooks and ``/dev/console`` say.
    """
    cgroup = cgroups.create(cgroup_name)
    (cgroup / EXEC).mkdir()
    keeper = subprocess.Popen(
        ["sh", "-c", KEEPER, "keeper", cgroup],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    stage = ["sh", str(STAGE), *mount, *map(str, hooks)]
    into = ["sh", "-c", START, "start", str(cgroup / "cgroup.procs"), *NAMESPACES, "--mount-proc", "--", *stage]
    reader, terminal = _console(console)
    unshare = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child=SIGKILL", "--", *into],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        env={**ENVIRONMENT, "rootmnt": str(root)},
        start_new_session=True,
    )
    os.close(terminal)
    return Container(cgroup, _first_child(unshare), unshare, (keeper, reader))


def _console(file: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A terminal, which systemd insists on, and the process that writes to ``file`` what is printed on it.

    The process ends when nobody has the terminal open.
    """
    control, terminal = os.openpty()
    with file.open("wb") as log:
        reader = subprocess.Popen(
            ["cat"], stdin=control, stdout=log, stderr=subprocess.DEVNULL, start_new_session=True
        )
    os.close(control)
    return reader, terminal


def settle(container: Container, timeout: float = BOOT_TIMEOUT) -> str:
    """Wait until systemd has started all that it shall; returns its state (``running``, ``degraded`` …)."""
    deadline = time.monotonic() + timeout
    while not _reachable(container.init):
        if not container.alive:
            raise LabError("init did not start")
        if time.monotonic() > deadline:
            raise LabError(f"systemd is not reachable after {timeout:.0f} s")
        time.sleep(0.01)
    try:
        return container.systemctl("is-system-running", "--wait", timeout=deadline - time.monotonic())
    except subprocess.TimeoutExpired:
        jobs = container.systemctl("list-jobs", timeout=10)
        raise LabError(f"still booting after {timeout:.0f} s:\n{jobs}") from None


def environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {**ENVIRONMENT, **(extra or {})}


def login(command: Sequence[Word], env: Mapping[str, str] | None) -> list[Word]:
    """What runs ``command`` as root's login does, which clears the environment."""
    settings = ["env", *(f"{name}={value}" for name, value in env.items())] if env else []
    return ["su", "--login", "--command", 'exec "$@"', "--", "root", "sh", *settings, *command]


def children(pid: int) -> list[int]:
    """Child processes, of all threads (proc_pid_task_children(5))."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def descendants(pid: int) -> list[int]:
    """Children, theirs and so on; the eldest of each generation comes first."""
    found = children(pid)
    for child in found:
        found += children(child)
    return found


def _first_child(process: subprocess.Popen[bytes]) -> int:
    """The pid of PID 1: unshare forks once. 0 when unshare has already ended."""
    while process.poll() is None:
        if found := children(process.pid):
            return found[0]
        time.sleep(0.001)
    return 0


def _reachable(init: int) -> bool:
    """Whether systemctl can be used. Until the stage has become systemd, ``root`` is the root of the host."""
    try:
        if Path(f"/proc/{init}/comm").read_text() != "systemd\n":
            return False
        return Path(f"/proc/{init}/root/run/systemd/private").exists()
    except OSError:
        return False
