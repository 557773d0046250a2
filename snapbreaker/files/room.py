"""Space for what must come back on a filesystem that the run has filled."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import ParamSpec, TypeVar

from snapbreaker.files import ops
from snapbreaker.files.entry import Aspect, Change, Entry
from snapbreaker.files.live import LiveTree
from snapbreaker.files.remove import unlink
from snapbreaker.files.tree import Tree
from snapbreaker.linux.filesystems import filesystem_type

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_LATE = ("zfs",)  # gives space back with a later transaction group only, of 5 s at most (zfs_txg_timeout)
_WAIT, _LOOK = 15.0, 0.1  # seconds
RESERVE = "reserve"  # the file of a vault that only takes space, until a restore needs it

_SMALL = 1 << 20  # bytes: of a larger file only what is no hole counts
_WRITTEN = Aspect.TYPE | Aspect.CONTENT | Aspect.SPARSE | Aspect.REMOVED | Aspect.LINKS

_P = ParamSpec("_P")
_T = TypeVar("_T")


def content_of(old: Tree, changes: Iterable[Change]) -> int:
    """Bytes of files' contents that a restore of ``changes`` writes, at most. Raises OSError."""
    octets, counted = 0, set()
    for change in changes:
        entry = change.old
        if entry is None or not (entry.is_file and change.aspects & _WRITTEN) or (entry.dev, entry.ino) in counted:
            continue
        if entry.nlink > 1:
            counted.add((entry.dev, entry.ino))
        octets += entry.size if entry.size <= _SMALL else _data(old, entry)
    return octets


def _data(old: Tree, entry: Entry) -> int:
    content = old.content(entry)
    try:
        return sum(extent.length for extent in content.extents)
    finally:
        content.close()


class Room:
    """Gives the reserve of the vault back when there is no space, then deletes files that the run added.

    ``changes`` are empty unless the caller allows the latter, largest first: such a file is then gone instead of
    displaced. ``vault`` is the absolute path of the directory that holds the reserve.
    """

    def __init__(self, live: LiveTree, vault: str, changes: Iterable[Change] = ()) -> None:
        self._live = live
        self._vault = vault
        added = [change.new for change in changes if change.old is None and change.new is not None]
        self._added = sorted((e for e in added if e.is_file and e.nlink == 1), key=lambda entry: entry.size)
        self.deleted: list[bytes] = []
        self._late = filesystem_type(live.root_fd) in _LATE

    def make(self, action: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """The result of ``action``, done again after each file given up for want of space."""
        while True:
            try:
                return action(*args, **kwargs)
            except OSError as error:
                if error.errno not in NO_SPACE or not self._give_up():
                    raise

    def _give_up(self) -> bool:
        """One more file; False when there is none."""
        if self._give_back():
            return True
        if not self._added:
            return False
        with suppress(OSError):
            self._delete(self._added.pop())
        return True

    def _give_back(self) -> bool:
        fd = os.open(self._vault, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.unlink(RESERVE, dir_fd=fd)
            ops.syncfs(fd)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def _delete(self, entry: Entry) -> None:
        parent, name = self._live.open_parent(entry.path)
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if status.st_ino != entry.ino or not stat.S_ISREG(status.st_mode):
            return
        if status.st_nlink != 1:
            return  # another name keeps it, in a vault perhaps: nothing is won
        free = _free(parent)
        unlink(parent, name)
        self.deleted.append(entry.path)
        ops.syncfs(parent)  # btrfs gives the space back with the transaction
        if self._late:
            _await(parent, free + status.st_blocks * 512 // 2)


def _free(directory: int) -> int:
    facts = os.statvfs(directory)
    return facts.f_bfree * facts.f_frsize


def _await(directory: int, octets: int) -> None:
    """Until so many are free, or not for long."""
    deadline = time.monotonic() + _WAIT
    while _free(directory) < octets and time.monotonic() < deadline:
        time.sleep(_LOOK)
