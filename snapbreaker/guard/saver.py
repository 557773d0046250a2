"""The threads that copy files for the guard. They open nothing: the kernel gave us each file open."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from snapbreaker.files.tree import Extent
from snapbreaker.guard.saved import PACKS, SYNC, LogWriter, NoRoom
from snapbreaker.linux.clone import copy_range, data_ranges

_LARGE = 8 << 20  # bytes; such files have a thread of their own, so that nobody waits behind one
_BLOCK = 1 << 20
_SYNCED = 20  # files a second, that are on disk before their writers go on
_QUIET_ROUNDS = 20  # of ``SYNC`` after which the log is told that all is well though nothing was saved

Done = Callable[[int, OSError | None], None]
"""Called by a thread when the file of an inode is safe, or with why it is not."""


class Saver:
    """``done`` is called from the threads."""

    def __init__(self, vault: str, log: LogWriter, done: Done) -> None:
        self._log, self._done = log, done
        self._writing = threading.Lock()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self.packs = [os.open(f"{vault}/{name}", flags, 0o600) for name in PACKS]
        self._queues: list[queue.SimpleQueue[tuple[int, int, bool] | None]] = [queue.SimpleQueue() for _ in PACKS]
        self._threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(len(PACKS))]
        self._saved = self._synced = 0  # how many files
        self.broken = False
        self._credit, self._credited = float(_SYNCED), time.monotonic()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()
        threading.Thread(target=self._go_on_syncing, daemon=True).start()

    def save(self, inode: int, fd: int, size: int, awaited: bool = True) -> None:
        """Queue an open file; its descriptor stays the caller's, and open until ``done``. Of one that nobody waits
        for it does not matter when it is on disk.
        """
        self._queues[size >= _LARGE].put((inode, fd, awaited))

    def end(self) -> None:
        """Let the threads end when they have done what is queued."""
        for each in self._queues:
            each.put(None)

    @property
    def at_work(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def sync(self) -> None:
        """Have all on disk that was saved until now, and say so in the log; never again after a failure, since the
        kernel tells of what it could not write only once (fsync(2)). Where just the log has no room for that line
        nothing is lost, and the next one says more. Raises OSError.
        """
        if self.broken:
            return
        try:
            self._sync()
        except NoRoom:
            raise
        except OSError:
            self.break_off()
            raise

    def break_off(self) -> None:
        """From now on nobody can tell what is on disk. Where that cannot be noted, no ``safe`` line follows,
        which after a power cut says the same.
        """
        self.broken = True
        with suppress(OSError):
            self._log.add(broken=True)

    def _may_sync(self) -> bool:
        """Whether a writer waits until its file is on disk: not where hundreds are changed in a row."""
        with self._writing:
            now = time.monotonic()
            self._credit = min(_SYNCED, self._credit + (now - self._credited) * _SYNCED)
            self._credited = now
            if self._credit < 1:
                return False
            self._credit -= 1
            return True

    def _sync(self) -> None:
        with self._writing:
            began, count = time.time_ns(), self._saved
        if count > self._synced:
            for pack in self.packs:
                os.fdatasync(pack)
        self._log.add(safe=began, saved=count)
        self._synced = count

    def _go_on_syncing(self) -> None:
        rounds = 0
        while True:
            time.sleep(SYNC)
            rounds += 1
            if self._saved > self._synced or rounds % _QUIET_ROUNDS == 0:
                with suppress(OSError):
                    self.sync()

    def _work(self, number: int) -> None:
        end = 0
        while (task := self._queues[number].get()) is not None:
            inode, fd, awaited = task
            try:
                end = self._store(number, inode, fd, end)
                if awaited and self._may_sync():
                    self.sync()
                self._done(inode, None)
            except OSError as error:
                self._done(inode, error)

    def _store(self, number: int, inode: int, fd: int, end: int) -> int:
        facts, pack = os.fstat(fd), self.packs[number]
        extents = []
        for start, stop in data_ranges(fd, facts.st_size):
            _copy(fd, start, stop - start, pack, end)
            extents.append(Extent(start, end, stop - start))
            end += stop - start
        with self._writing:
            self._log.append(
                inode=inode,
                size=facts.st_size,
                mtime_ns=facts.st_mtime_ns,
                pack=number,
                extents=[[one.offset, one.source, one.length] for one in extents],
            )
            self._saved += 1
        return end


def _copy(fd: int, start: int, length: int, pack: int, end: int) -> None:
    done = copy_range(fd, start, length, pack, end)
    while done < length:
        data = os.pread(fd, min(_BLOCK, length - done), start + done)
        if not data:
            raise OSError(5, "it became shorter while it was saved")
        written = 0
        while written < len(data):
            written += os.pwrite(pack, data[written:], end + done + written)
        done += len(data)
