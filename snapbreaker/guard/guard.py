"""Starting and ending a guard.

It is two processes. The *guard* answers the kernel; the *watchdog*, its parent, kills it when it gives no sign
of life for a second: the kernel lets everybody go that waits for a dead guard (fanotify(7)). Both outlive the
worker, so that whoever finishes its work finds everything saved; ``end`` ends them from any process, by what
the log says.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError
from snapbreaker.guard import call
from snapbreaker.guard.changes import open_changes
from snapbreaker.guard.inodes import InodeSet
from snapbreaker.guard.saved import BEAT as BEAT_FILE
from snapbreaker.guard.saved import COARSE_NS, LogWriter, SavedFiles
from snapbreaker.guard.server import BEAT, COMPLETE, COPIED, MESSAGE, Server
from snapbreaker.linux.descriptors import allow_descriptors, close_all_but
from snapbreaker.linux.fanotify import (
    FAN_CLASS_CONTENT,
    FAN_CLASS_PRE_CONTENT,
    FAN_CLOEXEC,
    FAN_MARK_ADD,
    FAN_MARK_FILESYSTEM,
    FAN_MODIFY,
    FAN_NONBLOCK,
    FAN_OPEN_PERM,
    FAN_PRE_ACCESS,
    FAN_REPORT_TID,
    FAN_UNLIMITED_MARKS,
    FAN_UNLIMITED_QUEUE,
    explain,
    fanotify_init,
    fanotify_mark,
)
from snapbreaker.linux.handles import tell_inodes
from snapbreaker.linux.lease import expect_breaks
from snapbreaker.linux.memory import lock_memory
from snapbreaker.linux.pidfd import send_signal
from snapbreaker.linux.process import boot_id, die_with_parent, identify, is_alive
from snapbreaker.linux.sched import urgent

SILENCE = 1.0  # s without a sign of life after which the guard is killed
STARTING = 5.0  # s until a guard that does not answer is given up
ENDING = 35.0  # s that it may take to save what is still to be saved
ASK_BEFORE_ACCESS = True  # where the kernel can; tests switch it off, to be on an older kernel
_POLL, _LEAVING = 0.02, 2.0
_IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)
_GROUP = FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS | FAN_REPORT_TID
_EVENT = os.O_RDONLY | os.O_CLOEXEC | os.O_LARGEFILE | os.O_NOATIME | os.O_NONBLOCK


def unavailable(mountpoint: str) -> str:
    """Why there can be no guard for the filesystem mounted there; empty when there can."""
    if not call.is_known():
        return f"the system calls of {os.uname().machine} are not known to snapbreaker"
    try:
        if not tell_inodes(mountpoint):
            return "the handles of its files do not tell their inodes"
        os.close(open_changes(mountpoint))
        group, _ = _open_group(mountpoint)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return "this kernel asks nobody before a file is opened (CONFIG_FANOTIFY_ACCESS_PERMISSIONS)"
        return explain(error)
    os.close(group)
    try:
        with open("/proc/sys/fs/leases-enable", "rb") as file:
            if file.read().strip() == b"0":
                return "leases are switched off (sysctl fs.leases-enable=1)"
    except OSError:
        return "it cannot be told whether leases work: /proc/sys/fs/leases-enable cannot be read"
    return ""


@dataclass(slots=True)
class Guard:
    """One guard, seen from the worker. ``pid`` is the watchdog's. ``fd`` becomes readable when something is
    wrong.
    """

    vault: str
    pid: int
    _control: socket.socket
    watchdog_fd: int  # becomes readable when the watchdog is gone

    @classmethod
    def start(cls, mountpoint: str, vault: str, wanted: InodeSet) -> Guard:
        """From now on every inode of ``wanted`` is saved before it is opened for writing. Raises
        CheckpointError.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            _be_watchdog(mountpoint, vault, wanted, theirs.fileno())
        theirs.close()
        guard = cls(vault, pid, ours, os.pidfd_open(pid))
        ours.settimeout(STARTING)
        try:
            answer = ours.recv(1000)
        except OSError:
            answer = b""
        if answer != b"+":
            why = os.fsdecode(answer[1:]) or "it does not answer"
            guard.close()
            raise CheckpointError(f"the guard of {mountpoint} could not be started: {why}", "try again")
        return guard

    @property
    def fd(self) -> int:
        return self._control.fileno()

    def copied(self, inodes: Sequence[int]) -> None:
        """Of these there is a copy now, made while nobody could write to them: they may change."""
        most = MESSAGE // 8
        for at in range(0, len(inodes), most):
            with suppress(OSError):  # its end is told by ``complete``
                self._control.send(
                    COPIED + b"".join(one.to_bytes(8, sys.byteorder) for one in inodes[at : at + most])
                )

    def complete(self) -> None:
        """The checkpoint is complete: what is saved from now on is what is recorded. Raises CheckpointError."""
        try:
            self._control.send(COMPLETE)
            answer = self._control.recv(1000)
        except OSError:
            answer = b""
        if answer[:1] == b"-":
            raise CheckpointError(f"the guard cannot write its log: {os.fsdecode(answer[1:])}", "try again")
        if answer != b"+":
            raise CheckpointError(self.trouble(), "try again")

    def trouble(self) -> str:
        """What is wrong, when ``fd`` is readable."""
        saved = SavedFiles(self.vault)
        try:
            if saved.broken:
                return "what the guard saves could not be written to the disk"
            if saved.watch().orderly:
                return next(iter(saved.lost.values()), "a file could not be saved before it was changed in place")
            return "the guard, which saves files before they are changed in place, has died or did not answer"
        finally:
            saved.close()

    def close(self) -> None:
        """End it and collect it. Idempotent."""
        end(self.vault)
        self._control.close()
        if self.watchdog_fd >= 0:
            os.close(self.watchdog_fd)
            self.watchdog_fd = -1
        with suppress(ChildProcessError):
            if not _ended(self.pid, _LEAVING):
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)


def is_guarded(vault: str) -> bool:
    """Whether the guard of a vault is at work."""
    saved = SavedFiles(vault)
    guardian = saved.guardian
    saved.close()
    return guardian is not None and is_alive(guardian)


def end(vault: str) -> None:
    """End the guard of a vault, from any process, and wait until it is gone. Idempotent; nothing where there
    is none.
    """
    saved = SavedFiles(vault)
    guardian, watchdog = saved.guardian, saved.watchdog
    saved.close()
    if guardian is not None and is_alive(guardian):
        time.sleep(COARSE_NS / 1e9)  # or of what was changed last, a moment ago, it would not be told that it knew
        send_signal(guardian, signal.SIGTERM)
        send_signal(guardian, signal.SIGCONT)  # one that is stopped would not hear of it, and everybody wait
        deadline = time.monotonic() + ENDING
        while is_alive(guardian):
            if time.monotonic() > deadline:
                send_signal(guardian, signal.SIGKILL)
            time.sleep(_POLL / 4)
    if watchdog is not None and is_alive(watchdog):
        send_signal(watchdog, signal.SIGCONT)  # it has nothing to do any more but to end
        deadline = time.monotonic() + _LEAVING
        while is_alive(watchdog) and time.monotonic() < deadline:
            time.sleep(_POLL / 4)


def _ended(pid: int, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not os.waitpid(pid, os.WNOHANG)[0]:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL / 4)
    return True


def _open_group(mountpoint: str) -> tuple[int, int]:
    """A group that is asked for the whole filesystem, and its mask: the best that this kernel offers."""
    try:
        if ASK_BEFORE_ACCESS:
            return _group(mountpoint, FAN_CLASS_PRE_CONTENT, FAN_OPEN_PERM | FAN_PRE_ACCESS | FAN_MODIFY)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    return _group(mountpoint, FAN_CLASS_CONTENT, FAN_OPEN_PERM | FAN_MODIFY)


def _group(mountpoint: str, kind: int, mask: int) -> tuple[int, int]:
    group = fanotify_init(_GROUP | kind, _EVENT)
    try:
        fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, mask, mountpoint)
    except OSError:
        os.close(group)
        raise
    return group, mask


def _be_watchdog(mountpoint: str, vault: str, wanted: InodeSet, control: int) -> NoReturn:
    """Hold no descriptor of the guard's group: a dead guard must be the last one that has it."""
    try:
        _detach({control})
        try:
            beat = _beat_of(vault)
        except OSError as error:
            _refuse(control, error)
            raise
        guard = os.fork()
        if guard == 0:
            _be_guard(mountpoint, vault, wanted, control, beat)
        os.close(control)  # the worker is to see the guard's end
        with urgent():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            lock_memory()
            pidfd = os.pidfd_open(guard)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            in_time = time.monotonic_ns() + (STARTING - SILENCE) * 1e9  # for the first sign
            while not poll.poll(BEAT * 1000):
                signed = int.from_bytes(beat[8:16], "little") or in_time
                if time.monotonic_ns() - signed > SILENCE * 1e9:
                    os.kill(guard, signal.SIGKILL)
            os.waitpid(guard, 0)
    finally:
        os._exit(0)


def _beat_of(vault: str) -> mmap.mmap:
    fd = os.open(f"{vault}/{BEAT_FILE}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, mmap.PAGESIZE)
        return mmap.mmap(fd, mmap.PAGESIZE)
    finally:
        os.close(fd)


def _detach(kept: set[int]) -> None:
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setsid()
    os.chdir("/")
    close_all_but(kept)


def _be_guard(mountpoint: str, vault: str, wanted: InodeSet, control: int, beat: mmap.mmap) -> NoReturn:
    said = False
    try:
        die_with_parent(signal.SIGTERM)
        stop, stopping = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGTERM, lambda *_: None)
        expect_breaks()
        signal.set_wakeup_fd(stopping)
        allow_descriptors(1 << 16)
        log = LogWriter(vault)
        device = os.stat(mountpoint).st_dev
        lock_memory()
        server = Server(control, stop, device, wanted, log, vault, beat)
        os.set_blocking(control, False)
        changes = open_changes(mountpoint)
        group, mask = _open_group(mountpoint)  # from here on, whatever we opened there we would wait for ourselves
        server.begin(group, mask, changes)
        me, watchdog = identify(os.getpid()), identify(os.getppid())
        assert me is not None
        assert watchdog is not None
        with urgent():
            log.add(pid=me.pid, start=me.start, boot=boot_id(), mask=mask, watchdog=watchdog)
            server.sign()
            os.write(control, b"+")
            said = True
            server.serve()
    except BaseException as error:
        if not said:
            _refuse(control, error)
    finally:
        os._exit(0)


def _refuse(control: int, error: BaseException) -> None:
    """Tell the worker why there will be no guard."""
    where = f": {os.fsdecode(error.filename)}" if isinstance(error, OSError) and error.filename else ""
    why = error.strerror if isinstance(error, OSError) else None
    with suppress(OSError):
        os.write(control, b"-" + os.fsencode(f"{why or error}{where}"))
