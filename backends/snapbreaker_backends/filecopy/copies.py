"""Copies of files as they were at one instant, and when such a copy still stands for the file."""

from __future__ import annotations

import errno
import os
import time
from typing import NamedTuple

from snapbreaker.files.entry import Details, Entry
from snapbreaker.files.live import LiveTree
from snapbreaker.files.manifest_format import Block
from snapbreaker.files.proof import TICK_NS
from snapbreaker.files.tree import Extent
from snapbreaker.linux.lease import is_open_for_writing
from snapbreaker.writers import Inode
from snapbreaker_backends.filecopy.pack import PackWriter, Shrunk

GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
_LONGEST_WAIT = 0.2  # s; a ctime further in the future than that is a clock that was set, and waiting is in vain


class Copy(NamedTuple):
    """Where the data lies, and the metadata under which it was read."""

    size: int
    mtime_ns: int
    ctime_ns: int
    extents: tuple[Extent, ...]

    def fits(self, entry: Entry) -> bool:
        return self.ctime_ns == entry.ctime_ns and self.size == entry.size and self.mtime_ns == entry.mtime_ns


class Recorded(NamedTuple):
    """One path as the manifest gets it; ``extents`` are None for what has no content, or is ``linked``."""

    entry: Entry
    details: Details
    extents: tuple[Extent, ...] | None
    linked: bool = False

    @property
    def path(self) -> bytes:
        return self.entry.path


class Packed(NamedTuple):
    """The same as another manifest has it."""

    entry: Entry
    extras: bytes

    @property
    def path(self) -> bytes:
        return self.entry.path


class PackedBlock(NamedTuple):
    """Many of them, compressed."""

    block: Block
    packed: bytes

    @property
    def path(self) -> bytes:
        return self.block.first


class Copies:
    """The copies by inode, so that hard links are copied once.

    ``settled_ns``: a file whose ctime is older than that had been left alone for two ticks of the kernel's clock
    before copying began, so any later change shows in its ctime. Of any other the copy is trusted only when it was
    taken two ticks after its ctime and after the last sync: call ``distrust`` then.
    """

    def __init__(self, tree: LiveTree, pack: PackWriter) -> None:
        self._tree, self._pack = tree, pack
        self._copies: dict[Inode, Copy] = {}
        self._fresh: set[Inode] = set()
        self.settled_ns = time.time_ns() - 2 * TICK_NS

    def __contains__(self, inode: Inode) -> bool:
        return inode in self._copies

    def forget(self, inode: Inode) -> None:
        self._copies.pop(inode, None)

    def distrust(self) -> None:
        """The filesystem was synced: what was read earlier of files that are still being written may be old."""
        self._fresh.clear()

    def find(self, entry: Entry) -> Copy | None:
        """A copy that is what the file holds under the metadata of ``entry``."""
        inode = Inode(entry.dev, entry.ino)
        copy = self._copies.get(inode)
        if copy is None or not copy.fits(entry):
            return None
        return copy if entry.ctime_ns <= self.settled_ns or inode in self._fresh else None

    def take(self, entry: Entry, *, may_change: bool = False, alone: bool = False) -> Copy | None:
        """Copy the file now; None when it changed meanwhile, which does not matter with ``may_change``.

        A write(2) sets the times before it writes, so one that is going on all the while does not show in them.
        With ``alone`` None is also the answer when the file is open for writing before or after.
        Raises OSError, one of ``GONE`` when it is no longer there.
        """
        wait_for_tick(entry.ctime_ns, self.settled_ns)
        fd = self._tree.open_entry(entry)
        try:
            if alone and is_open_for_writing(fd):
                return None
            before = os.fstat(fd)
            extents = self._pack.add(fd, before.st_size, before.st_blocks * 512)
            if alone and is_open_for_writing(fd):
                return None
            after = os.fstat(fd)
        except Shrunk:
            return None
        except OSError as error:
            # Of the pack the name is not known here, and it is the file that a person can do something about.
            error.filename = error.filename or entry.path
            raise
        finally:
            os.close(fd)
        copy = Copy(before.st_size, before.st_mtime_ns, before.st_ctime_ns, extents)
        if _state(before) != _state(after) and not may_change:
            return None
        inode = Inode(before.st_dev, before.st_ino)
        self._copies[inode] = copy
        if before.st_ctime_ns <= entry.ctime_ns:  # the tick that was waited for
            self._fresh.add(inode)
        return copy


def wait_for_tick(ctime_ns: int, settled_ns: int) -> None:
    """Until a change of the file would get a later ctime than this one: two ticks of the kernel's coarse clock."""
    if ctime_ns > settled_ns:
        missing = (ctime_ns + 2 * TICK_NS - time.time_ns()) / 1e9
        if 0 < missing < _LONGEST_WAIT:
            time.sleep(missing)


def _state(facts: os.stat_result) -> tuple[int, int, int]:
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
