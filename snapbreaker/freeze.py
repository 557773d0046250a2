"""Holding writers still while their files are copied, and letting them go whatever happens."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import field

from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError
from snapbreaker.linux.pidfd import send_signal
from snapbreaker.linux.process import Identity, cgroup_of, process
from snapbreaker.linux.sched import urgent
from snapbreaker.monitor.cgroup import Cgroup, Hierarchy
from snapbreaker.thawer import Thawer
from snapbreaker.writers import Writer

TIMEOUT = 2.0  # s until a process that cannot be frozen is given up
_ROUNDS = 50  # scans until nobody new is found; a process that forks faster than it can be stopped is given up
_POLL = 0.0005  # s
_KEEP = "stop it, or leave the path out with --keep"


@dataclass(slots=True)
class Frozen:
    """What is held. ``seconds`` is how long, known once it is over."""

    writers: list[Writer] = field(default_factory=list)
    cgroups: list[str] = field(default_factory=list)
    stopped: list[Identity] = field(default_factory=list)
    seconds: float = 0.0


@contextmanager
def frozen(scan: Callable[[], list[Writer]], root: str, timeout: float = TIMEOUT) -> Iterator[Frozen]:
    """Freeze every writer that ``scan`` finds, and scan again until it finds nobody new.

    A writer's cgroup is frozen as a whole when none of our ancestors lies in it, else the process alone is stopped
    by SIGSTOP. The block runs before all ordinary processes, so it is short on a busy machine too. All are let go
    at the end, also by a helper should this process be killed. Raises CheckpointError for one that cannot be
    frozen or must not be (ourselves and our ancestors); ``root`` is named in the message.
    """
    held = Frozen()
    writers = scan()
    if not writers:
        yield held
        return
    started = time.monotonic()
    with _undisturbed(), Thawer() as thawer, urgent():
        holder = _Holder(held, thawer, root, timeout)
        try:
            started = time.monotonic()
            holder.hold(writers, scan)
            yield held
        finally:
            holder.release()
            thawer.farewell()
            held.seconds = time.monotonic() - started


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-Z must not stop us while we hold others."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP, signal.SIGTTOU, signal.SIGTTIN})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Holder:
    def __init__(self, held: Frozen, thawer: Thawer, root: str, timeout: float) -> None:
        self._held, self._thawer, self._root, self._timeout = held, thawer, root, timeout
        self._hierarchy = Hierarchy.find()
        self._ancestors = _ancestors()
        self._ancestor_cgroups = {cgroup_of(pid) or "/" for pid in self._ancestors}
        self._cgroups: dict[str, Cgroup] = {}

    def hold(self, writers: list[Writer], scan: Callable[[], list[Writer]]) -> None:
        seen: dict[Identity, Writer] = {}
        for _ in range(_ROUNDS):
            new = [writer for writer in writers if writer.identity not in seen]
            seen.update((writer.identity, writer) for writer in writers)
            if not new:
                self._held.writers = writers
                return
            for writer in new:
                self._refuse_ancestor(writer)
            for writer in new:
                self._freeze(writer)
            writers = scan()
        raise self._failure(writers[0], "new writers appear faster than they can be frozen")

    def release(self) -> None:
        for cgroup in self._cgroups.values():
            cgroup.thaw()
            cgroup.close()
        for identity in self._held.stopped:
            with suppress(PermissionError):
                send_signal(identity, signal.SIGCONT)

    def _freeze(self, writer: Writer) -> None:
        path = self._own_cgroup(writer.pid)
        if path is None:
            self._stop(writer)
        elif path not in self._cgroups:
            self._freeze_cgroup(path, writer)

    def _own_cgroup(self, pid: int) -> str | None:
        """The directory of the process' cgroup, None when it is the root or holds one of our ancestors."""
        name = cgroup_of(pid)
        if name is None or name == "/" or self._hierarchy is None:
            return None
        if any(own == name or own.startswith(name + "/") for own in self._ancestor_cgroups):
            return None
        return self._hierarchy.directory(name)

    def _freeze_cgroup(self, path: str, writer: Writer) -> None:
        try:
            cgroup = Cgroup(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW))
        except FileNotFoundError:
            return  # it ended meanwhile; the next scan tells
        if _is_frozen(cgroup):
            cgroup.close()  # by somebody else, who will thaw it
            return
        self._thawer.add_cgroup(path)
        self._cgroups[path] = cgroup
        self._held.cgroups.append(path)
        if not cgroup.freeze(self._timeout) and cgroup.pids():
            raise self._failure(writer, f"its cgroup was not frozen within {self._timeout:g} s")

    def _stop(self, writer: Writer) -> None:
        found = process(writer.pid)
        if found is None or found.identity != writer.identity or found.stopped:
            return  # gone, or stopped by somebody else
        self._thawer.add_process(writer.identity)
        self._held.stopped.append(writer.identity)
        try:
            sent = send_signal(writer.identity, signal.SIGSTOP)
        except PermissionError as error:
            raise self._failure(writer, "it may not be stopped") from error
        deadline = time.monotonic() + self._timeout
        while sent and not _all_stopped(writer.identity):
            if time.monotonic() > deadline:
                raise self._failure(writer, f"it did not stop within {self._timeout:g} s")
            time.sleep(_POLL)

    def _refuse_ancestor(self, writer: Writer) -> None:
        if writer.pid in self._ancestors:
            which = "snapbreaker itself" if writer.pid == os.getpid() else f"{writer}, which started snapbreaker,"
            raise CheckpointError(
                f"{which} has {_shown(self._root, writer)} open for writing",
                "send the output somewhere outside the scope, or leave the path out with --keep",
            )

    def _failure(self, writer: Writer, why: str) -> CheckpointError:
        return CheckpointError(f"{writer} has {_shown(self._root, writer)} open for writing, and {why}", _KEEP)


def _shown(root: str, writer: Writer) -> str:
    path = root.rstrip("/") + "/" + os.fsdecode(writer.paths[0])
    shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\n", "\\n")
    return f"{shown} and {len(writer.paths) - 1} more" if len(writer.paths) > 1 else shown


def _ancestors() -> set[int]:
    """Ourselves, our parent, and so on up to init."""
    found: set[int] = set()
    pid = os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        one = process(pid)
        pid = one.parent if one else 0
    return found


def _is_frozen(cgroup: Cgroup) -> bool:
    try:
        fd = os.open("cgroup.freeze", os.O_RDONLY | os.O_CLOEXEC, dir_fd=cgroup.fd)
    except FileNotFoundError:
        return False  # Linux before 5.2
    try:
        return os.read(fd, 16).strip() == b"1"
    finally:
        os.close(fd)


def _all_stopped(identity: Identity) -> bool:
    """Whether every thread is stopped (or gone)."""
    try:
        threads = os.listdir(f"/proc/{identity.pid}/task")
    except FileNotFoundError:
        return True
    for thread in threads:
        try:
            fd = os.open(f"/proc/{identity.pid}/task/{thread}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            text = os.read(fd, 1024)
        except ProcessLookupError:
            continue
        finally:
            os.close(fd)
        if text[text.rindex(b")") + 2 : text.rindex(b")") + 3] not in (b"T", b"t", b"Z", b"X"):
            return False
    return True
