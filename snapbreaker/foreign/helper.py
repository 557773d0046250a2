"""The life of the watcher's process: takes events, judges who wrote, notes it, ends when told or left alone."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
import termios
import time
from collections.abc import Collection
from contextlib import suppress

from snapbreaker.foreign.ancestry import INTERVAL
from snapbreaker.foreign.facts import Facts, Origin
from snapbreaker.foreign.held import Devices, held_files
from snapbreaker.foreign.verdict import Judge, Judgement, Verdict
from snapbreaker.linux.fanotify import FAN_EVENT_METADATA_LEN, Event, read_events
from snapbreaker.linux.inode import get_generation
from snapbreaker.writers import Inode

BATCH = 128  # events a read: each is an open descriptor
DRAINING = 1.0  # s at most for what is in the queue when the watch ends
SCANNING = 1.0  # s at most for the files that are open then
_FAILURES = 1000  # errors in a row that no event accounts for


class Helper:
    """``group`` is the fanotify group, ``control`` the worker's socket: a byte means catch up and say so, its end
    means stop.

    ``ignored`` are directories whose files are snapbreaker's own: vaults and the store.
    """

    def __init__(
        self, group: int, control: int, judge: Judge, facts: Facts, devices: Devices, ignored: Collection[str]
    ) -> None:
        self._group, self._control, self._judge, self._facts = group, control, judge, facts
        self._devices = devices
        self._ignored = tuple(os.fsencode(path).rstrip(b"/") + b"/" for path in ignored)
        self._poll = select.poll()
        self._poll.register(group, select.POLLIN)
        self._lost = 0
        self._unjudged = 0
        self._failed = 0  # in a row

    def serve(self) -> None:
        """Watch until told to stop; then take what is left, look who still holds files, and say that it is all."""
        poll = select.poll()
        poll.register(self._group, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        ancestry = self._judge.ancestry
        interval = INTERVAL * 1000 if ancestry else None
        while True:
            ready = dict(poll.poll(interval))
            ancestry.refresh_if_due()
            if self._group in ready:
                self.take()
            if self._control in ready and not self._told_to_catch_up():
                break
        ancestry.close()
        self._facts.end(self._caught_up(), self._unjudged)

    def _told_to_catch_up(self) -> bool:
        """Do so, and say that it is done. False: told to end, or left alone."""
        with suppress(OSError):
            if not os.read(self._control, 1):
                return False
            self._facts.caught_up(self._caught_up(), self._unjudged)
            os.write(self._control, b"+")
            return True
        return False

    def _caught_up(self) -> str:
        """Take what is left, look who still holds files. Why that is not all, empty when it is."""
        reason = self._drain() or self._scan() or self._drain()  # again: what was closed while we looked
        return reason or (f"{self._lost} writes could not be looked at" if self._lost else "")

    def take(self) -> int:
        """Handle one batch; how many events it held.

        All processes are judged before any file is looked at: they may be about to end.
        """
        try:
            events = read_events(self._group, BATCH)
        except OSError as error:
            # Nothing to read although poll(2) said so: the file of an event could not be opened.
            self._count_lost(error)
            return 1
        self._failed = 0
        judged = {event.pid: self._judge(event.pid) for event in events}
        for event in events:
            if event.fd < 0:  # the queue has overflown, or its file could not be opened
                self._lost += 1
                continue
            try:
                self._note(event, judged[event.pid])
            except OSError:
                self._lost += 1
            finally:
                os.close(event.fd)
        return len(events)

    def _count_lost(self, error: OSError) -> None:
        self._lost += 1
        self._failed += 1
        if self._failed > _FAILURES or error.errno in (errno.EBADF, errno.EINVAL, errno.EFAULT):
            raise error

    def _note(self, event: Event, judgement: Judgement) -> None:
        if judgement.verdict is Verdict.OWN:
            return
        self._unjudged += judgement.verdict is Verdict.UNKNOWN
        facts = os.fstat(event.fd)
        if facts.st_nlink == 0:
            return
        inode = Inode(facts.st_dev, facts.st_ino)
        generation = get_generation(event.fd)
        if judgement.verdict is not Verdict.FOREIGN:
            self._facts.run(inode, generation)
            return
        path = _path_of(event.fd)
        if not path.startswith(self._ignored):
            self._note_foreign(inode, generation, path, event.pid, judgement, "closed")

    def _note_foreign(
        self, inode: Inode, generation: int | None, path: bytes, pid: int, judgement: Judgement, how: str
    ) -> None:
        origin = Origin(os.fsdecode(path), pid, judgement.comm, judgement.unit, how)
        self._facts.foreign(inode, generation, origin)

    def _drain(self) -> str:
        """Take at least what the queue holds now. Why that was not possible, empty when it was."""
        deadline = time.monotonic() + DRAINING
        pending = _pending(self._group)
        while self._poll.poll(0):
            if time.monotonic() >= deadline:
                return "" if pending <= 0 else "not all writes could be looked at in time"
            pending -= self.take()
        return ""

    def _scan(self) -> str:
        try:
            for pid, file in held_files(self._devices, time.monotonic() + SCANNING):
                judgement = self._judge(pid)
                if judgement.verdict is Verdict.FOREIGN:
                    if not file.text.startswith(self._ignored):
                        self._note_foreign(file.inode, None, file.text, pid, judgement, "open")
                elif judgement.verdict is not Verdict.OWN:
                    self._facts.run(file.inode, None)
        except TimeoutError:
            return "not all processes could be asked in time for the files that they write"
        except OSError as error:
            return f"the processes' open files could not be listed: {error.strerror}"
        return ""


def _path_of(fd: int) -> bytes:
    with suppress(OSError):
        return os.readlink(b"/proc/self/fd/%d" % fd)
    return b""


def _pending(group: int) -> int:
    """Events in the queue: FIONREAD counts their bytes (fs/notify/fanotify/fanotify_user.c, fanotify_ioctl)."""
    answer = fcntl.ioctl(group, termios.FIONREAD, bytes(4))
    length: int = struct.unpack("=i", answer)[0]
    return length // FAN_EVENT_METADATA_LEN
