"""The life of the guard's process: answer the kernel before each open, and have what is about to be written saved.

Whoever waits for an answer stands still, so one thread answers and does nothing else. It opens nothing on the
guarded filesystem: it would wait for its own answer.

Of some changes the kernel tells only afterwards, to another group (``guard.changes``). What that group has queued
is looked at before a file is saved, and again when it was: else it might be saved as it was already changed.
"""

from __future__ import annotations

import mmap
import os
import select
import struct
import threading
import time
from contextlib import suppress

from snapbreaker.guard import call
from snapbreaker.guard.changes import changed_inodes
from snapbreaker.guard.hot import Hot
from snapbreaker.guard.inodes import InodeSet
from snapbreaker.guard.saved import LogWriter
from snapbreaker.guard.saver import Saver
from snapbreaker.linux.fanotify import (
    FAN_MARK_ADD,
    FAN_MARK_EVICTABLE,
    FAN_MARK_IGNORED_MASK,
    FAN_MARK_IGNORED_SURV_MODIFY,
    FAN_MODIFY,
    FAN_OPEN_PERM,
    FAN_PRE_ACCESS,
    Event,
    allow,
    mark_inode,
    read_events,
)
from snapbreaker.linux.lease import nobody_writes

BEAT = 0.05  # s between two signs of life, at most
PATIENCE = 30.0  # s that a writer is kept waiting for its file to be saved; then it gets it unsaved
HOLD = 5.0  # s that it waits when the file could not be saved: the breaker trips meanwhile, and ends it
CLOSING = 2.0  # s in which, at the end, what was announced before is looked at
COPIED, COMPLETE = b"d", b"c"
MESSAGE = 1 + 8 * 1000  # bytes of the longest message: so many inodes fit in
_BATCH = 64
_INODE = struct.Struct("=Q")
_CLOSING_POLL = 5  # ms
_IGNORE = FAN_MARK_ADD | FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY
_PERMISSION = FAN_OPEN_PERM | FAN_PRE_ACCESS


class _Waiting:
    """A file that is being saved, the tasks that wait for it, and until when they do (monotonic)."""

    __slots__ = ("deadline", "events", "failure", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.events: list[Event] = []
        self.deadline = 0.0
        self.failure = ""


class Server:
    """``wanted`` are the inodes whose content must not be lost, all on ``device`` (st_dev).

    ``control`` is the socket to the worker (SOCK_SEQPACKET). From it come ``COPIED`` with inodes no longer
    wanted, and ``COMPLETE``, which is answered; a message to it says that something could not be saved. ``stop``
    becomes readable when it is time to end.
    """

    def __init__(
        self, control: int, stop: int, device: int, wanted: InodeSet, log: LogWriter, vault: str, beat: mmap.mmap
    ) -> None:
        self._control, self._stop = control, stop
        self._group, self._mask, self._changes = -1, 0, -1
        self._device, self._wanted, self._log, self._beat = device, wanted, log, beat
        self._waiting: dict[int, _Waiting] = {}
        self._quiet = InodeSet()  # of these nobody is asked before access any more
        self._lock = threading.Lock()  # of all that is above, and the answers
        self._saver = Saver(vault, log, self._saved)
        self._hot = Hot(_free(self._saver.packs[0]))
        self._own: set[int] = set()
        self._told = self._blind = False  # blind: a loss could not be noted, so nothing since then is known
        self._seen = time.time_ns()  # all that happened until then was looked at

    def begin(self, group: int, mask: int, changes: int) -> None:
        """Take over the groups. Of our own files nobody is to be asked: where another guard was there before they
        were opened, each write to them would wait for our own answer (FAN_PRE_ACCESS, fs/file_table.c).
        """
        self._group, self._mask, self._changes = group, mask, changes
        for fd in (self._log.fd, *self._saver.packs):
            mark_inode(group, _IGNORE, mask, fd)

    def serve(self) -> None:
        """Answer until told to stop; then save what is still to be saved, and let everybody go."""
        self._saver.start()
        # Python goes on calling the main thread by the number that it had before the fork.
        others = (thread for thread in threading.enumerate() if thread is not threading.main_thread())
        self._own = {threading.get_native_id(), *(thread.native_id for thread in others if thread.native_id)}
        poll = select.poll()
        for fd in (self._group, self._changes, self._control, self._stop):
            poll.register(fd, select.POLLIN)
        ending, deadline, drained = False, 0.0, False
        while not ending or self._saver.at_work or not (drained or time.monotonic() > deadline):
            ready = dict(poll.poll(_CLOSING_POLL if ending else BEAT * 1000))
            began = time.time_ns()
            with self._lock:
                if self._control in ready and not self._listen():
                    poll.unregister(self._control)  # the worker is gone; whoever finishes its work ends us
                self._take_changes()
            drained = self._take()
            if drained and not self._blind:
                self._seen = began
            self.sign()
            if self._waiting:
                self._let_the_impatient_go()
            if self._saver.broken:
                self._tell()
            if self._stop in ready and not ending:
                poll.unregister(self._stop)
                self._saver.end()
                ending, drained = True, False
                deadline = time.monotonic() + CLOSING
        self._saver.sync()
        self._log.add(end=self._seen)

    def sign(self) -> None:
        """Say that we live, and until when all that happened is known: not later than what is still queued."""
        self._beat[:16] = self._seen.to_bytes(8, "little") + time.monotonic_ns().to_bytes(8, "little")

    def _listen(self) -> bool:
        """Take the worker's messages; False when there is no worker any more."""
        with suppress(BlockingIOError):
            while True:
                try:
                    message = os.read(self._control, MESSAGE)
                except ConnectionError:
                    return False
                if not message:
                    return False
                if message[:1] == COPIED:
                    for (inode,) in _INODE.iter_unpack(message[1:]):
                        self._wanted.discard(inode)
                else:
                    self._send(self._completed())
        return True

    def _completed(self) -> bytes:
        try:
            self._log.add(ready=time.time_ns())
        except OSError as error:
            return b"-" + os.fsencode(error.strerror or f"{error}")
        return b"+"

    def _take_changes(self) -> None:
        """Under the lock. Where access is asked for, a change is news only where that was switched off."""
        for inode in changed_inodes(self._changes):
            if inode in self._wanted and (not self._mask & FAN_PRE_ACCESS or inode in self._quiet):
                why = "it was truncated, or given another mtime alone, where nobody is asked before"
                self._changed_unseen(inode, why)

    def _take(self) -> bool:
        """Whether the queue was emptied. A file that cannot be opened for us is no reason to end."""
        try:
            events = read_events(self._group, _BATCH)
        except BlockingIOError:
            return True
        except OSError:
            return False
        with self._lock:
            self._take_changes()  # they came before these
            for event in events:
                if event.fd >= 0:
                    self._judge(event)
        return len(events) < _BATCH

    def _judge(self, event: Event) -> None:
        facts = os.fstat(event.fd)
        inode = facts.st_ino
        if inode not in self._wanted or facts.st_dev != self._device or event.pid in self._own:
            self._ignore(event.fd, self._mask)
            self._answer(event)
        elif not event.mask & _PERMISSION:
            self._changed_unseen(inode, "it was changed in place through a descriptor that nobody had seen opened")
            self._answer(event)
        elif self._is_read(event):
            if event.mask & FAN_OPEN_PERM and inode not in self._waiting:
                self._save_what_is_hot(inode, event.fd, facts.st_size)
            self._answer(event)
        else:
            self._save(inode, event, facts.st_size)

    def _is_read(self, event: Event) -> bool:
        if not nobody_writes(event.fd):
            return False
        if event.mask & FAN_PRE_ACCESS:
            return call.only_reads(event.pid)
        if not call.opens_without_truncating(event.pid):
            return False
        if self._mask & FAN_PRE_ACCESS:
            # Or each read(2) would be asked for. Of truncate(2) only ``_changes`` tells from now on.
            self._quiet.add(os.fstat(event.fd).st_ino)
            self._ignore(event.fd, FAN_PRE_ACCESS)
        return True

    def _save_what_is_hot(self, inode: int, fd: int, size: int) -> None:
        if self._hot.opened(inode, size):
            waiting = self._waiting[inode] = _Waiting(os.dup(fd))
            self._saver.save(inode, waiting.fd, size, awaited=False)

    def _save(self, inode: int, event: Event, size: int) -> None:
        waiting = self._waiting.get(inode)
        if waiting is None:
            waiting = self._waiting[inode] = _Waiting(os.dup(event.fd))
            self._saver.save(inode, waiting.fd, size)
        if not waiting.events:
            waiting.deadline = time.monotonic() + PATIENCE
        waiting.events.append(event)

    def _saved(self, inode: int, error: OSError | None) -> None:
        """From a thread of the saver."""
        with self._lock:
            self._take_changes()  # while it was copied
            waiting = self._waiting.get(inode)
            if waiting is None:
                return
            if error is not None and not waiting.events:
                os.close(self._waiting.pop(inode).fd)  # it goes on being asked for
                return
            if error is not None:
                waiting.failure = (
                    f"it could not be saved before it was changed in place: {error.strerror or error}"
                )
                waiting.deadline = time.monotonic() + HOLD
                self._tell()
                return
            self._ignore(waiting.fd, self._mask)
            self._let_go(inode)

    def _let_the_impatient_go(self) -> None:
        now = time.monotonic()
        with self._lock:
            late = [inode for inode, one in self._waiting.items() if one.events and one.deadline < now]
            for inode in late:
                slow = f"saving it took longer than {PATIENCE:g} s, and it was changed in place meanwhile"
                self._changed_unseen(inode, self._waiting[inode].failure or slow)
                self._let_go(inode)

    def _let_go(self, inode: int) -> None:
        self._wanted.discard(inode)
        waiting = self._waiting.pop(inode)
        for event in waiting.events:
            self._answer(event)
        os.close(waiting.fd)

    def _changed_unseen(self, inode: int, why: str) -> None:
        """Unless the worker has copied it: what it says comes before the change, and may be read after it."""
        self._listen()
        if inode not in self._wanted:
            return
        self._wanted.discard(inode)
        try:
            self._log.add(lost=inode, why=why)
        except OSError:
            self._blind = True
            self._saver.break_off()
        self._tell()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._send(b"!")

    def _send(self, message: bytes) -> None:
        with suppress(OSError):  # the worker may be gone
            os.write(self._control, message)

    def _answer(self, event: Event) -> None:
        if event.mask & _PERMISSION:
            with suppress(OSError):  # ENOENT: the task was killed while it waited
                allow(self._group, event)
        os.close(event.fd)

    def _ignore(self, fd: int, mask: int) -> None:
        """Not to be asked or told of this inode again. Where the kernel cannot, it goes on asking."""
        _ignore(self._group, mask, fd)
        if mask & FAN_MODIFY:
            _ignore(self._changes, FAN_MODIFY, fd)


def _ignore(group: int, mask: int, fd: int) -> None:
    with suppress(OSError):
        try:
            mark_inode(group, _IGNORE | FAN_MARK_EVICTABLE, mask, fd)
        except OSError:  # Linux before 5.19
            mark_inode(group, _IGNORE, mask, fd)


def _free(fd: int) -> int:
    """Bytes that are free on the filesystem of an open file."""
    space = os.fstatvfs(fd)
    return space.f_bavail * space.f_frsize
