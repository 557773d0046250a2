"""Is a process of the run? Judged while it, or at least its zombie, is still there."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterator
from enum import Enum, auto
from typing import NamedTuple

from snapbreaker.foreign.ancestry import Ancestry
from snapbreaker.linux.proc_events import Fork
from snapbreaker.linux.process import Identity, Process, cgroup_of, has_environment, identify, is_alive, process
from snapbreaker.monitor.cgroup import Hierarchy
from snapbreaker.monitor.process_tree import MARKER, ProcessTree
from snapbreaker.system import cron
from snapbreaker.system.strays import reads_job

FRESH = 0.25  # s for which a verdict is believed without a look: no pid comes round again that soon
_KTHREADD = 2
_GENERATIONS = 100  # of parents; more are a loop of pids that changed their owner while we looked
_REMEMBERED = 4096
# What systemd and these write, others have asked them for by D-Bus (`systemctl set-property`, `hostnamectl`): who,
# the file does not tell.
_SYSTEMD = "systemd"
_SERVANTS = ("systemd-hostnamed.service", "systemd-localed.service", "systemd-timedated.service")
# What they start may belong to anybody: only the process itself can tell.
_AT = "atd"
_STARTERS = {"systemd", "init", _AT}

# Not begun by the run though younger: somebody's login, and what a connection to a socket of systemd's started.
# The instances of the latter are named by instance_from_socket (systemd, src/core/socket.c): a number, then both
# ends of the connection, or pid (with its pidfd's id since 257) and uid of the peer. `postgresql@15-main` is none.
_OF_OTHERS = re.compile(
    r"(user|user-runtime-dir)@.*\.service|.*@\d+-(.*:\d+-.*:\d+|\d+(_\d+)?-\d+|unknown)\.service", re.DOTALL
)


class Verdict(Enum):
    RUN = auto()
    FOREIGN = auto()
    UNKNOWN = auto()  # gone before it could be judged, or acts for whoever asks: kernel threads, systemd
    OWN = auto()  # snapbreaker


class Judgement(NamedTuple):
    """``unit`` is the systemd unit, else the cgroup; empty where there is no cgroup v2."""

    verdict: Verdict
    comm: str = ""
    unit: str = ""


_UNKNOWN = Judgement(Verdict.UNKNOWN)
_OUTSIDE = Judgement(Verdict.FOREIGN, unit="outside of this pid namespace")


class _Cached(NamedTuple):
    time: float
    start: int
    judgement: Judgement


class Judge:
    """Judges pids for one run. ``family``: snapbreaker's other processes; orphans of a dead worker come to them.

    Of the run is: who is in its cgroup; who descends from the worker, but not through a child that it has for
    itself; who has the run's marker in the environment, or an ancestor of whom has it (jobs of at(1)); whom
    cron(8) has started by a line that was not there before; and who is in a service that was started during the
    run, but not by a login or a connection. A service that a timer happened to start meanwhile cannot be told from
    one that the run started, and counts as the run's.
    """

    def __init__(self, tree: ProcessTree, family: Collection[Identity] = ()) -> None:
        self.ancestry = Ancestry()
        self._owner = tree.owner
        self._family = frozenset(family)
        self._excluded = frozenset(tree.excluded)
        self._own = {self._owner, *self._family, identify(os.getpid())}
        self._marker = f"{MARKER}={tree.run_id}".encode()
        self._hierarchy = Hierarchy.find()
        cgroup = tree.cgroup if self._hierarchy else None
        self._born = cgroup.id if cgroup else None
        self._cgroup = self._hierarchy.name(cgroup.path) if cgroup and self._hierarchy else None
        self._cron = cron.Watch(FRESH)
        self._cache: dict[int, _Cached] = {}
        self._lineage: dict[Identity, tuple[float, bool]] = {}

    def __call__(self, pid: int) -> Judgement:
        """The verdict on ``pid``, which has just done something. Never raises."""
        if pid == 0:
            return _OUTSIDE
        now = time.monotonic()
        cached = self._cache.get(pid)
        if cached is not None and now - cached.time < FRESH:
            return cached.judgement
        one = process(pid)
        if one is None:
            return self._inherited(pid)
        if cached is not None and cached.start == one.start and cached.judgement.verdict is not Verdict.FOREIGN:
            judgement = cached.judgement
        else:  # a foreign one may have executed a job of the run meanwhile
            judgement = self._judge(one)
        self._remember(one, judgement)
        return self._inherited(pid) if judgement is _UNKNOWN else judgement

    def _inherited(self, pid: int) -> Judgement:
        """The verdict on a process that is gone: that on its nearest ancestor that is there, or was judged before.

        Its own cgroup and environment are not known any more. What starts processes for others says nothing.
        """
        self.ancestry.refresh()
        for _ in range(_GENERATIONS):
            fork = self.ancestry.of(pid)
            if fork is None or fork.parent <= _KTHREADD:
                return _UNKNOWN
            judgement = self._parent(fork)
            if judgement is not None:
                if judgement.verdict is Verdict.OWN:  # the worker forks for the run, and for itself before it
                    return Judgement(Verdict.RUN)
                return _UNKNOWN if judgement.comm in _STARTERS else judgement
            pid = fork.parent
        return _UNKNOWN

    def _parent(self, fork: Fork) -> Judgement | None:
        """The verdict on the parent, None when it is gone and was never judged."""
        cached = self._cache.get(fork.parent)
        if cached is not None and not self.ancestry.was_there(cached.start, fork):
            cached = None  # another process that had, or has, this pid
        if cached is not None and time.monotonic() - cached.time < FRESH:
            return cached.judgement
        one = process(fork.parent)
        if one is not None and self.ancestry.was_there(one.start, fork):
            judgement = self._judge(one)
            self._remember(one, judgement)
            return None if judgement is _UNKNOWN else judgement
        return cached.judgement if cached else None

    def _remember(self, one: Process, judgement: Judgement) -> None:
        if len(self._cache) >= _REMEMBERED:
            self._cache.clear()
        if judgement.verdict is not Verdict.UNKNOWN:
            self._cache[one.pid] = _Cached(time.monotonic(), one.start, judgement)

    def _judge(self, one: Process) -> Judgement:
        if one.identity in self._own:
            return Judgement(Verdict.OWN)
        if _KTHREADD in (one.pid, one.parent):
            # A last fput(9) may be left to a kernel worker, whoever closed the file.
            return Judgement(Verdict.UNKNOWN, one.comm)
        cgroup = cgroup_of(one.pid) if self._hierarchy else ""
        if cgroup is None:
            return _UNKNOWN
        if one.comm == _SYSTEMD or _unit(cgroup) in _SERVANTS:
            return Judgement(Verdict.UNKNOWN, one.comm, _unit(cgroup))
        if one.dead and _parent_comm(one) == _AT:
            return Judgement(Verdict.UNKNOWN, one.comm, _unit(cgroup))  # it cannot be asked any more
        of_run = (
            self._in_run(cgroup) or self._descends(one) or self._in_new_service(cgroup) or self._cron.is_new(one)
        )
        return Judgement(Verdict.RUN if of_run else Verdict.FOREIGN, one.comm, _unit(cgroup))

    def _in_run(self, cgroup: str) -> bool:
        return self._cgroup is not None and (cgroup == self._cgroup or cgroup.startswith(self._cgroup + "/"))

    def _descends(self, one: Process) -> bool:
        """By parents or marker. Remembered, for its children too; a "no" only shortly, since an exec may come."""
        now = time.monotonic()
        looked_at: list[Identity] = []
        answer = False
        for each, parent in _generations(one):
            known = self._lineage.get(each.identity)
            if known is not None and (known[1] or now - known[0] < FRESH):
                answer = known[1]
                break
            looked_at.append(each.identity)
            answer = (
                self._is_child(each, parent)
                or has_environment(each.pid, self._marker)
                or reads_job(each.pid, self._marker)
            )
            if answer or each.identity in self._excluded:
                break
        if len(self._lineage) >= _REMEMBERED:
            self._lineage.clear()
        self._lineage.update((identity, (now, answer)) for identity in looked_at)
        return answer

    def _is_child(self, one: Process, parent: Process | None) -> bool:
        """Whether it is a child of the worker, or an orphan that came to one of us after the worker's death."""
        if parent is None or one.identity in self._excluded:
            return False
        if parent.identity == self._owner:
            return True
        return parent.identity in self._family and one.start >= self._owner.start and not is_alive(self._owner)

    def _in_new_service(self, cgroup: str) -> bool:
        """Whether the outermost service of this cgroup that is younger than the run's cgroup counts as its."""
        if self._hierarchy is None or self._born is None:
            return False
        end = 0
        while (end := cgroup.find(".service", end)) >= 0:
            end += len(".service")
            directory = self._hierarchy.directory(cgroup[:end])
            if directory is None or cgroup[end : end + 1] not in ("", "/"):
                continue
            try:
                if os.stat(directory).st_ino > self._born:
                    return not _OF_OTHERS.fullmatch(os.path.basename(directory))
            except OSError:  # the unit has ended, so who can say
                return True
        return False


def _generations(one: Process) -> Iterator[tuple[Process, Process | None]]:
    """The process and its parent, that one and its parent, up to the one below init."""
    for _ in range(_GENERATIONS):
        parent = process(one.parent) if one.parent > 1 else None
        if parent is None and one.parent > 1:  # ended just now: somebody has adopted the child
            one = process(one.pid) or one
            parent = process(one.parent) if one.parent > 1 else None
        yield one, parent
        if parent is None:
            return
        one = parent


def _parent_comm(one: Process) -> str:
    parent = process(one.parent)
    return parent.comm if parent else ""


def _unit(cgroup: str) -> str:
    for part in reversed(cgroup.split("/")):
        if part.endswith((".service", ".scope")):
            return part
    return cgroup
