"""A part of one tree, made again in another: whole, with all that is known of it, whatever stands there.

Not by cp(1): anybody can make directories deeper than a path can be long, and it knows no inode flags.
"""

from __future__ import annotations

import os
import stat

from snapbreaker.files import metadata, ops
from snapbreaker.files.entry import Details, Entry
from snapbreaker.files.live import LiveTree
from snapbreaker.files.remove import remove_tree
from snapbreaker.linux.openat import open_beneath

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_tree(old: LiveTree, new: int, path: bytes) -> None:
    """Make ``path`` of ``old``, with all below it, in the directory ``new``, which has the directories above it.

    A directory that is there stays, and what else is in it; nobody but root gets into it before all is done. Else
    what has the name goes. Cut off, it can be done again. Raises OSError.
    """
    copier = _Copier(old, new)
    try:
        for entry in old.walk(path):
            copier.make(entry)
        copier.finish()
    finally:
        copier.close()


class _Copier:
    def __init__(self, old: LiveTree, new: int) -> None:
        self._old, self._new = old, new
        self._above, self._parent = b"", os.dup(new)
        self._links: dict[tuple[int, int], bytes] = {}
        self._late: list[tuple[Entry, Details]] = []  # what would be in the way if it were whole already

    def close(self) -> None:
        os.close(self._parent)

    def make(self, entry: Entry) -> None:
        above, _, name = entry.path.rpartition(b"/")
        if above != self._above:
            parent = open_beneath(self._new, above, _DIRECTORY)
            os.close(self._parent)
            self._above, self._parent = above, parent
        if entry.is_dir:
            self._enter(name)
            self._late.append((entry._replace(subvolume=False), self._old.details(entry)))
            return
        remove_tree(self._parent, name)
        first = self._links.get((entry.dev, entry.ino)) if entry.nlink > 1 else None
        if first is not None:
            self._link(first, name)
            return
        self._links[entry.dev, entry.ino] = entry.path
        if entry.is_file:
            self._make_file(entry, name)
        else:
            self._make_special(entry, name)

    def finish(self) -> None:
        """What is further down first: it changes the times of what holds it."""
        for entry, details in reversed(self._late):
            fd = open_beneath(self._new, entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                metadata.settle(fd, entry, details)
            finally:
                os.close(fd)

    def _enter(self, name: bytes) -> None:
        try:
            there = os.stat(name, dir_fd=self._parent, follow_symlinks=False).st_mode
        except FileNotFoundError:
            there = 0
        if not stat.S_ISDIR(there):
            remove_tree(self._parent, name)
            ops.mkdir(self._parent, name)
            return
        fd = open_beneath(self._parent, name, _DIRECTORY)
        try:
            metadata.unlock(fd)
            ops.chown(fd, os.geteuid(), os.getegid())
            ops.chmod(fd, 0o700)
        finally:
            os.close(fd)

    def _link(self, first: bytes, name: bytes) -> None:
        above, _, there = first.rpartition(b"/")
        fd = open_beneath(self._new, above, _DIRECTORY)
        try:
            ops.link(fd, there, self._parent, name)
        finally:
            os.close(fd)

    def _make_file(self, entry: Entry, name: bytes) -> None:
        details, content = self._old.read(entry)
        try:
            fd = ops.create(self._parent, name)
            try:
                metadata.prepare(fd, details)
                if content.size:
                    ops.fill(fd, content)
                metadata.settle_new(fd, entry, details)
            finally:
                os.close(fd)
        finally:
            content.close()
        if details.flags & metadata.LOCKS:
            self._late.append((entry, details))

    def _make_special(self, entry: Entry, name: bytes) -> None:
        details = self._old.details(entry)
        if entry.is_link:
            ops.symlink(details.target, self._parent, name)
        else:
            ops.mknod(self._parent, name, entry.mode, 0 if stat.S_ISFIFO(entry.mode) else entry.rdev)
        metadata.settle_special(self._parent, name, entry, details)
