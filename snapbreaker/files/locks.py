"""Flags and properties of the live tree that forbid changes: lifted where they are in the way, and put back."""

from __future__ import annotations

import os

from snapbreaker.files import metadata, ops
from snapbreaker.files.entry import Entry
from snapbreaker.files.live import LiveTree
from snapbreaker.files.stage import Stage
from snapbreaker.linux.inode import get_flags


class Locks:
    """Immutable and append-only files and directories, read-only subvolumes.

    What is lifted is on disk before it is: after a crash the next comparison shows it as a difference, and what
    was displaced can still be given its flags. ``lifted`` maps paths to (flags, read-only subvolume).
    """

    def __init__(self, live: LiveTree, stage: Stage) -> None:
        self._live, self._stage = live, stage
        self.lifted: dict[bytes, tuple[int, bool]] = {}

    def lift(self, path: bytes) -> bool:
        """Lift what keeps ``path`` from being changed or replaced: on itself and above. Whether there was any."""
        return self._lift(self._live.lookup(path)) | self.lift_inside(path.rpartition(b"/")[0])

    def lift_inside(self, directory: bytes) -> bool:
        """Lift what keeps entries of ``directory`` from being changed."""
        found = self._lift(self._live.lookup(directory))
        while directory:
            directory = directory.rpartition(b"/")[0]
            entry = self._live.lookup(directory)
            if entry is not None and entry.subvolume:
                return self._lift(entry) or found
        return found

    def put_back(self, path: bytes) -> None:
        """Give ``path``, which was not restored itself, the locks that it had."""
        flags, read_only = self.lifted[path]
        entry = self._live.lookup(path)
        if entry is None:
            return
        fd = self._live.open_entry(entry)
        try:
            if flags:
                ops.set_flags(fd, get_flags(fd) | flags)
            if entry.subvolume and read_only:
                ops.set_subvolume_read_only(fd, True)
        finally:
            os.close(fd)

    def _lift(self, entry: Entry | None) -> bool:
        if entry is None or not (entry.is_dir or entry.is_file):
            return False
        fd = self._live.open_entry(entry)
        try:
            flags, read_only = metadata.locks_of(fd)
            if not flags and not read_only:
                return False
            self._stage.note_unlocked(entry.path, flags, read_only)
            self.lifted.setdefault(entry.path, (flags, read_only))
            metadata.unlock(fd)
            return True
        finally:
            os.close(fd)
