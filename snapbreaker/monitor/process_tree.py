"""The processes of one run: all that the command started, wherever they went.

The set is the members of the run's own cgroup, the descendants of the process that started it (a subreaper, so
orphans stay), and the members of scopes that were made for one of them (``su -`` is moved to a session scope by
pam_systemd). Where our process is gone, those descendants are found by an environment marker and by session.

Not found: a process that left the cgroup *and* the environment *and* our descendants on purpose, and what a
service manager or container engine starts on the command's behalf; units are reconciled after the restore.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import field
from typing import Any

from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError
from snapbreaker.linux.pidfd import send_signal
from snapbreaker.linux.process import (
    Identity,
    Process,
    become_subreaper,
    boot_id,
    cgroup_of,
    command_line,
    has_environment,
    identify,
    is_alive,
    processes,
)
from snapbreaker.monitor.cgroup import PROMPT, Cgroup, Hierarchy

MARKER = "SNAPBREAKER_RUN"
_PAUSE = 0.0005  # s between two looks at /proc


@dataclass(frozen=True, slots=True)
class FreezeReport:
    """``frozen``: every process of the set stands still. ``stuck``: those that did not, as (pid, comm, state)."""

    frozen: bool
    seconds: float
    stuck: list[tuple[int, str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class KillReport:
    """``killed``: processes seen alive and killed; ``survivors`` (pid, comm, state), D: in the kernel."""

    killed: int
    seconds: float
    survivors: list[tuple[int, str, str]] = field(default_factory=list)


class ProcessTree:
    """The processes of run ``run_id``. Its methods make system calls on cgroupfs and /proc only."""

    def __init__(self, run_id: str, owner: Identity, cgroup: Cgroup | None) -> None:
        self.run_id = run_id
        self.owner = owner
        self.cgroup = cgroup
        self.root: Identity | None = None
        self.excluded: set[Identity] = set()
        self._marker = f"{MARKER}={run_id}".encode()
        self._halted: set[Identity] = set()  # stopped by us, by SIGSTOP

    @classmethod
    def create(cls, run_id: str, *, use_cgroup: bool = True) -> ProcessTree:
        """A new, empty set; this process becomes its owner and a subreaper.

        Children that we have already (a watchdog, jobs of the shell that executed us) are excluded with all below
        them. Without cgroup v2, or where no cgroup may be made, ``cgroup`` is None. Raises CheckpointError when
        the run's cgroup exists already. Children that this process starts later for itself must be excluded:
        every other one counts as the command's, and is collected by ``reap``.
        """
        become_subreaper()
        try:
            cgroup = Cgroup.create(_name(run_id)) if use_cgroup else None
        except FileExistsError as error:
            raise CheckpointError(f"{error.filename} exists: run {run_id} is not over") from error
        me = os.getpid()
        seen = processes()
        tree = cls(run_id, seen[me].identity, cgroup)
        tree.excluded.update(one.identity for one in seen.values() if one.parent == me)
        return tree

    @classmethod
    def clear(cls, run_id: str) -> None:
        """Remove what ``create`` leaves behind when its process dies before the command was started."""
        Cgroup.clear(_name(run_id))

    def exclude(self, pid: int) -> None:
        """Leave a process that we start for ourselves (the watchdog), and all below it, out of the set."""
        if found := identify(pid):
            self.excluded.add(found)

    def started(self, pid: int) -> None:
        """Name the command's own process. Call it before the command can fork."""
        self.root = identify(pid)

    # what it is made of

    def members(self) -> dict[int, Process]:
        """Every living process of the set, by pid."""
        seen = processes()
        inside = self.cgroup.pids() if self.cgroup else set()
        found = self._closure(seen, inside | self._outside(seen))
        for pid in self._scope_members(found - inside):
            found |= self._closure(seen, {pid})
        return {pid: seen[pid] for pid in sorted(found) if pid in seen and not seen[pid].dead}

    def command_lines(self, most: int = 100) -> list[list[str]]:
        """The command lines of the processes in the run's cgroup, of the ``most`` youngest at most."""
        pids = sorted(self.cgroup.pids(), reverse=True)[:most] if self.cgroup else []
        return [words for pid in pids if (words := command_line(pid))]

    def _outside(self, seen: dict[int, Process]) -> set[int]:
        """Where the search for processes outside the cgroup starts."""
        found = {self.root.pid} if self.root and self._is(seen, self.root) else set()
        if self._is(seen, self.owner) and not seen[self.owner.pid].dead:
            return found | {one.pid for one in seen.values() if one.parent == self.owner.pid}
        return found | {pid for pid, one in seen.items() if self._is_orphan(one, seen)}

    def _is_orphan(self, one: Process, seen: dict[int, Process]) -> bool:
        """Whether a process is of this run although its parents no longer tell."""
        if one.start < self.owner.start:
            return False
        if has_environment(one.pid, self._marker):
            return True
        # The id of a session or group stays reserved while it has members, so a new process with that pid shows
        # that ours ended.
        root = self.root
        if root is None or root.pid not in (one.session, one.group):
            return False
        return root.pid not in seen or self._is(seen, root)

    def _closure(self, seen: dict[int, Process], start: Iterable[int]) -> set[int]:
        """``start`` and all descendants, without excluded ones, the owner, this process and its ancestors."""
        children: dict[int, list[int]] = {}
        for one in seen.values():
            children.setdefault(one.parent, []).append(one.pid)
        barred = self._barred(seen)
        found: set[int] = set()
        waiting = [pid for pid in start if pid not in barred]
        while waiting:
            pid = waiting.pop()
            if pid not in found:
                found.add(pid)
                waiting += [child for child in children.get(pid, ()) if child not in barred]
        return found

    def _barred(self, seen: dict[int, Process]) -> set[int]:
        barred = {one.pid for one in self.excluded if self._is(seen, one)} | {1, 2}
        if self._is(seen, self.owner):
            barred.add(self.owner.pid)
        pid = os.getpid()
        while pid and pid not in barred:
            barred.add(pid)
            pid = seen[pid].parent if pid in seen else 0
        return barred

    def _scope_members(self, outside: set[int]) -> set[int]:
        """Members of systemd scopes younger than our cgroup that hold a process of the set: made for it."""
        hierarchy = Hierarchy.find() if self.cgroup and outside else None
        if hierarchy is None or self.cgroup is None:
            return set()
        found: set[int] = set()
        for path in {path for pid in outside if (path := cgroup_of(pid)) and path.endswith(".scope")}:
            directory = hierarchy.directory(path)
            with suppress(OSError):
                if directory and os.stat(directory).st_ino > self.cgroup.id:
                    with open(os.path.join(directory, "cgroup.procs"), encoding="ascii") as procs:
                        found.update(int(line) for line in procs)
        return found

    @staticmethod
    def _is(seen: dict[int, Process], identity: Identity | None) -> bool:
        return identity is not None and identity.pid in seen and seen[identity.pid].start == identity.start

    # what can be done with it

    def freeze(self, timeout: float = 0.05) -> FreezeReport:
        """Bring every process of the set to a standstill, waiting at most about ``timeout`` seconds.

        The cgroup first, at once; then SIGSTOP to those outside, until a look at /proc finds no new one.
        """
        started = time.monotonic()
        frozen = self.cgroup.freeze(timeout) if self.cgroup else True
        deadline = started + timeout
        stopped = self._stop_outside(deadline)
        if frozen and stopped:
            return FreezeReport(True, time.monotonic() - started)
        inside = self.cgroup.pids() if self.cgroup else set()
        members = self.members()
        # A frozen task sleeps as any other does, so of those inside only the ones in the kernel are known.
        late = [one for pid, one in members.items() if one.state == "D" or (pid not in inside and not one.stopped)]
        stuck = [(one.pid, one.comm, one.state) for one in late]
        return FreezeReport(False, time.monotonic() - started, stuck)

    def freeze_cgroup(self, timeout: float = 0.05) -> bool:
        """The first half of ``freeze``, for the instant of a trip; False without a cgroup."""
        return self.cgroup is not None and self.cgroup.freeze(timeout)

    def _stop_outside(self, deadline: float) -> bool:
        while True:
            inside = self.cgroup.pids() if self.cgroup else set()
            running = [one for pid, one in self.members().items() if pid not in inside and not one.stopped]
            if not running:
                return True
            for one in running:
                if self._signal(one, signal.SIGSTOP):
                    self._halted.add(one.identity)
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE)

    def thaw(self) -> None:
        """Let go on what ``freeze`` has stopped; what was stopped before stays so."""
        if self.cgroup:
            self.cgroup.thaw()
        for identity in self._halted:
            with suppress(PermissionError):
                send_signal(identity, signal.SIGCONT)
        self._halted.clear()

    def signal(self, number: int) -> int:
        """Send a signal to every process of the set; how many got it."""
        return sum(self._signal(one, number) for one in self.members().values())

    def kill(self, timeout: float = 5.0) -> KillReport:
        """SIGKILL the set until none is left or ``timeout`` seconds have passed. Reaps our own children of it."""
        started = time.monotonic()
        victims = self.cgroup.pids() if self.cgroup else set()
        if self.cgroup and self.cgroup.kill() and not self.cgroup.wait_empty(PROMPT):
            self.cgroup.hurry()
        while True:
            members = self.members()
            victims.update(members)
            self._kill_each(members)
            self.reap()
            if not members and (self.cgroup is None or self.cgroup.wait_empty(0.01)):
                return KillReport(len(victims), time.monotonic() - started)
            seconds = time.monotonic() - started
            if seconds >= timeout:
                survivors = [(one.pid, one.comm, one.state) for one in self.members().values()]
                return KillReport(len(victims) - len(survivors), seconds, survivors)
            time.sleep(_PAUSE)

    def _kill_each(self, members: dict[int, Process]) -> None:
        """First whole process groups that hold only members: one call reaches all of a group, also new forks."""
        if not members:
            return
        foreign = {one.group for pid, one in processes().items() if pid not in members and not one.dead}
        for group in {one.group for one in members.values()} - foreign - {0, 1}:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        for one in members.values():
            self._signal(one, signal.SIGKILL)

    def _signal(self, one: Process, number: int) -> bool:
        with suppress(PermissionError):
            return send_signal(one.identity, number)
        return False

    def reap(self) -> dict[int, os.waitid_result]:
        """Collect ended children of ours that are of the set: the command itself, and orphans."""
        collected: dict[int, os.waitid_result] = {}
        if os.getpid() != self.owner.pid:
            return collected
        excluded = {one.pid for one in self.excluded}
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return collected
            if ended is None:
                return collected
            if ended.si_pid in excluded:
                return collected | self._reap_behind(excluded)
            os.waitpid(ended.si_pid, 0)
            collected[ended.si_pid] = ended

    def _reap_behind(self, excluded: set[int]) -> dict[int, os.waitid_result]:
        """An ended child that is not ours to collect hides the others from P_ALL: go by pid."""
        collected: dict[int, os.waitid_result] = {}
        for one in processes().values():
            if one.parent == self.owner.pid and one.pid not in excluded:
                with suppress(ChildProcessError):
                    if ended := os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOHANG):
                        collected[one.pid] = ended
        return collected

    def release(self) -> list[tuple[int, str]]:
        """Let what still runs live on: thawed, in our own cgroup; then remove the run's. Returns (pid, comm)."""
        self.thaw()
        left = [(one.pid, one.comm) for one in self.members().values()]
        if self.cgroup and self.cgroup.move_members():
            self.cgroup.remove()
        return left

    def remove(self) -> bool:
        """Remove the cgroup and those that the command made below it; False while it has members. Idempotent."""
        return self.cgroup is None or self.cgroup.remove()

    # for another process, after ours died

    def describe(self) -> dict[str, Any]:
        """All that ``reopen`` needs; JSON-serialisable."""
        return {
            "run_id": self.run_id,
            "boot_id": boot_id(),
            "owner": list(self.owner),
            "root": list(self.root) if self.root else None,
            "cgroup": {"path": self.cgroup.path, "id": self.cgroup.id} if self.cgroup else None,
            "excluded": [list(one) for one in sorted(self.excluded)],
        }

    @classmethod
    def reopen(cls, description: dict[str, Any]) -> ProcessTree | None:
        """The set that another process described; None after a reboot: nothing of it can be alive.

        The describer must be dead, or about to be: while it lives, its own children count as members.
        """
        if description["boot_id"] != boot_id():
            return None
        where = description["cgroup"]
        cgroup = Cgroup.reopen(where["path"], where["id"]) if where else None
        tree = cls(description["run_id"], Identity(*description["owner"]), cgroup)
        tree.root = Identity(*description["root"]) if description["root"] else None
        tree.excluded = {Identity(*one) for one in description["excluded"]}
        return tree

    def is_owner_alive(self) -> bool:
        return is_alive(self.owner)


def _name(run_id: str) -> str:
    return f"snapbreaker-{run_id}"
