"""Watching who else writes in the volumes while the command runs."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import NoReturn

from snapbreaker.dataclass import dataclass
from snapbreaker.foreign.facts import NAME, Facts
from snapbreaker.foreign.held import Devices
from snapbreaker.foreign.helper import BATCH, Helper
from snapbreaker.foreign.verdict import Judge
from snapbreaker.linux.descriptors import allow_descriptors, close_all_but
from snapbreaker.linux.fanotify import (
    FAN_CLASS_NOTIF,
    FAN_CLOEXEC,
    FAN_CLOSE_WRITE,
    FAN_MARK_ADD,
    FAN_MARK_FILESYSTEM,
    FAN_NONBLOCK,
    FAN_REPORT_FD_ERROR,
    FAN_UNLIMITED_MARKS,
    FAN_UNLIMITED_QUEUE,
    explain,
    fanotify_init,
    fanotify_mark,
)
from snapbreaker.linux.memory import lock_memory
from snapbreaker.linux.process import Identity, boot_id, identify
from snapbreaker.linux.sched import urgent
from snapbreaker.monitor.process_tree import ProcessTree

STARTING = 2.0  # s until a helper that does not answer is given up
_IGNORED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGPIPE,
)
_POLL = 0.0005  # s
_LOG_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
_GROUP_FLAGS = FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS
# O_NONBLOCK: the kernel opens the file of an event for us, and must not wait for the other end of a fifo, nor for
# the holder of a lease.
_EVENT_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_LARGEFILE | os.O_NOATIME | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Watch:
    """What is to be watched, and where it is noted.

    ``record``: the directory of the record. ``mountpoints``: one or more of each filesystem. ``ignored``:
    directories of snapbreaker's own, vaults and the store. ``family``: snapbreaker's other processes (supervisor).
    """

    record: Path
    mountpoints: Sequence[str]
    ignored: Sequence[str] = ()
    family: Collection[Identity] = ()


@dataclass(slots=True)
class Watcher:
    """A helper process that watches; the run goes on without it when it cannot be started, or dies.

    ``available``: it was started. ``reason``: why foreign writes are not attributed, or not on all filesystems;
    empty when all is well. What it saw is in the record, ``log.read`` reads it.
    """

    pid: int | None = None
    reason: str = ""
    _control: socket.socket | None = field(default=None, repr=False)

    @property
    def available(self) -> bool:
        return self.pid is not None

    @classmethod
    def start(cls, watch: Watch, tree: ProcessTree) -> Watcher:
        """Watch from now on. Never raises OSError.

        To be called by the owner of ``tree`` when its cgroup exists and before the command is spawned. It leaves
        the helper out of the tree itself, since ``ProcessTree.reap`` would collect it as a child of the command,
        and ``kill`` would end it; so call it before ``tree.describe``.
        """
        try:
            log = os.open(watch.record / NAME, _LOG_FLAGS, 0o600)
        except OSError as error:
            return cls(reason=f"{watch.record / NAME} cannot be written: {error.strerror}")
        try:
            return _start(watch, tree, log)
        finally:
            os.close(log)

    def catch_up(self, timeout: float = 3.0) -> bool:
        """Have all that was written up to now noted in the log; whether it was. Watching goes on."""
        if self._control is None:
            return False
        try:
            self._control.settimeout(timeout)
            self._control.send(b"c")
            return self._control.recv(1) == b"+"
        except OSError:  # it is dead, or too slow: what it has noted counts
            return False

    def stop(self, timeout: float = 3.0) -> bool:
        """Have it take what is left and end; whether it did. After ``timeout`` seconds it is killed.

        To be called when the run's processes are dead, or the command has ended. Idempotent.
        """
        if self.pid is None or self._control is None:
            return False
        self._control.close()
        self._control = None
        if _reaped(self.pid, timeout):
            return True
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        _reaped(self.pid, 0.5)  # one that hangs in the kernel is left to init
        return False


@dataclass(frozen=True, slots=True)
class _Descriptors:
    group: int
    log: int


def _start(watch: Watch, tree: ProcessTree, log: int) -> Watcher:
    try:
        group = _open_group()
    except OSError as error:
        return _without(log, explain(error))
    try:
        watched, reason = _mark(group, watch.mountpoints)
        if not watched:
            return _without(log, reason or "there is no filesystem to watch")
        return _fork(watch, tree, _Descriptors(group, log), watched, reason)
    except OSError as error:
        return _without(log, f"the process that watches foreign writes could not be started: {error.strerror}")
    finally:
        os.close(group)


def _without(log: int, reason: str) -> Watcher:
    """Says also in the record why there is no watcher, for `recover`."""
    Facts(log).begin(unavailable=reason)
    return Watcher(reason=reason)


def _open_group() -> int:
    try:
        return fanotify_init(_GROUP_FLAGS | FAN_REPORT_FD_ERROR, _EVENT_FLAGS)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return fanotify_init(_GROUP_FLAGS, _EVENT_FLAGS)  # Linux before 6.13


def _mark(group: int, mountpoints: Sequence[str]) -> tuple[list[str], str]:
    """Mark each filesystem once; the mount points that are watched, and why the others are not."""
    watched: dict[int, str] = {}
    failed: list[str] = []
    for path in mountpoints:
        try:
            device = os.stat(path).st_dev
            if device not in watched:
                # A second mark of one filesystem (btrfs: another subvolume) changes nothing.
                fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_CLOSE_WRITE, path)
                watched[device] = path
        except OSError as error:
            failed.append(f"{path}: {explain(error)}")
    return list(watched.values()), "; ".join(failed)


def _fork(watch: Watch, tree: ProcessTree, descriptors: _Descriptors, watched: list[str], reason: str) -> Watcher:
    """Raises OSError when there can be no further process."""
    devices = Devices(watched)
    ours, theirs = socket.socketpair()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
    try:
        pid = os.fork()
        if pid == 0:
            _live(watch, tree, descriptors, theirs.fileno(), devices, reason)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()
    tree.exclude(pid)
    watcher = Watcher(pid, reason, ours)
    ours.settimeout(STARTING)
    try:
        started = ours.recv(1) == b"+"
    except OSError:
        started = False
    if not started:
        watcher.stop(0)
        reason = "the process that watches foreign writes did not start"
        Facts(descriptors.log).end(reason)
        return Watcher(reason=reason)
    return watcher


def _live(
    watch: Watch, tree: ProcessTree, descriptors: _Descriptors, control: int, devices: Devices, reason: str
) -> NoReturn:
    """The helper, from fork to end. Holds no descriptor but its three: ours may be locks."""
    facts = Facts(descriptors.log)
    try:
        facts.begin(watcher=identify(os.getpid()), boot=boot_id(), unwatched=reason)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.setsid()
        os.chdir("/")
        close_all_but({descriptors.group, descriptors.log, control})
        allow_descriptors(2 * BATCH)
        judge = Judge(tree, watch.family)
        helper = Helper(descriptors.group, control, judge, facts, devices, watch.ignored)
        lock_memory()
        with urgent():
            os.write(control, b"+")
            helper.serve()
    except BaseException as error:
        facts.end(f"the process that watches foreign writes failed: {error!r}")
    finally:
        os._exit(0)


def _reaped(pid: int, timeout: float) -> bool:
    """Whether the child has ended, at most ``timeout`` seconds later; its status is collected."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return True
        except ChildProcessError:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL)
