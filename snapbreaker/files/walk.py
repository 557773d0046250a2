"""The walk through directories: depth first, sorted, with a bounded number of descriptors."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from operator import itemgetter

from snapbreaker.files.bounds import Bounds
from snapbreaker.files.entry import Entry
from snapbreaker.files.view import View
from snapbreaker.linux.btrfs import ROOT_INODE
from snapbreaker.linux.openat import open_beneath

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# What opening a path says when it is gone, is another kind of file by now, or is a mount point.
NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV})

_ENCODING = sys.getfilesystemencoding()
# Beyond this depth the upper directories are closed and opened again on the way back.
_OPEN_FRAMES = 64
_WORTH_KNOWING = 256  # entries between two directories whose place in the walk is told

_new = tuple.__new__
_path = itemgetter(0)


def open_quietly(dir_fd: int, path: bytes, flags: int) -> int:
    """Open without touching the access time; O_NOATIME is allowed to the owner and to CAP_FOWNER only."""
    try:
        return open_beneath(dir_fd, path, flags | os.O_NOATIME, one_mount=True)
    except PermissionError:
        return open_beneath(dir_fd, path, flags, one_mount=True)


class _Frame:
    """One directory of a walk: its descriptor (-1 when it is closed) and the entries still to come."""

    __slots__ = ("entries", "fd", "path")

    def __init__(self, path: bytes, fd: int) -> None:
        self.path, self.fd = path, fd
        self.entries: Iterator[Entry] = iter(())

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Walk:
    """One walk. ``opener`` opens a directory by its path, ``lookup`` reads one entry again.

    A path that vanishes meanwhile is not there; one that becomes another kind of file is what it became. Other
    failures raise OSError with the path.
    """

    def __init__(
        self,
        view: View,
        opener: Callable[[bytes], int],
        lookup: Callable[[bytes], Entry | None],
        bounds: Bounds | None = None,
    ) -> None:
        self._view, self._opener, self._lookup, self._bounds = view, opener, lookup, bounds
        self._stack: list[_Frame] = []

    def run(self, top: Entry) -> Iterator[Entry]:
        """``top`` and all below it."""
        try:
            if top.is_dir:
                self._push(top, self._opener(top.path))
            if self._bounds is None or self._bounds.holds(top.path):
                yield top
            yield from self._descend()
        except FileNotFoundError as error:
            if error.filename != top.path or self._stack:
                raise
        finally:
            for frame in self._stack:
                frame.close()

    def _descend(self) -> Iterator[Entry]:
        stack = self._stack
        while stack:
            frame = stack[-1]
            for entry in frame.entries:
                if entry[1] & 0o170000 != 0o040000:
                    yield entry
                    continue
                current, fd = self._enter(frame, entry)
                if fd >= 0:
                    self._push(entry, fd)
                if current is not None and (self._bounds is None or not self._bounds.leads_to(current.path)):
                    yield current
                if fd >= 0:
                    break
            else:
                stack.pop().close()

    def _push(self, directory: Entry, fd: int) -> None:
        frame = _Frame(directory.path, fd)
        self._stack.append(frame)
        entries = read_directory(fd, directory, self._view)
        frame.entries = iter(entries if self._bounds is None else self._bounds.cut(directory.path, entries))
        if len(self._stack) > _OPEN_FRAMES:
            self._stack[-_OPEN_FRAMES].close()

    def _enter(self, frame: _Frame, directory: Entry) -> tuple[Entry | None, int]:
        """The entry as it is now, None when it is gone or a mount point, and a descriptor if it is a directory."""
        current: Entry | None = directory
        while current is not None and current.is_dir:
            try:
                return current, self._open(frame, current.path)
            except OSError as error:
                if error.errno == errno.EXDEV:
                    self._view.mounts.add(directory.path)
                if error.errno not in NOT_THERE:
                    error.filename = directory.path
                    raise
            current = self._lookup(directory.path)
        return current, -1

    def _open(self, frame: _Frame, path: bytes) -> int:
        if path in self._view.mapped:
            return self._opener(path)
        if frame.fd < 0:
            frame.fd = self._opener(frame.path)
        return open_quietly(frame.fd, path.rpartition(b"/")[2], DIRECTORY)


def read_directory(fd: int, directory: Entry, view: View) -> list[Entry]:
    """What ``view`` shows of one directory, sorted. This is the loop that decides how fast a walk is."""
    path = directory.path
    prefix = path + b"/" if path else b""
    unread = view.unread(directory)
    own_device, borrowed = directory.dev, view.borrowed
    entries = view.mapped_in(path)
    with os.scandir(fd) as items:
        for item in items:
            name = item.name.encode(_ENCODING, "surrogateescape")
            if name in unread:
                continue
            try:
                status = item.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                error.filename = prefix + name
                raise
            mode, ino, dev, nlink, uid, gid, size = status[:7]
            mtime, ctime, rdev = status.st_mtime_ns, status.st_ctime_ns, status.st_rdev
            if nlink > 1 and borrowed and mode & 0o170000 == 0o100000:
                nlink -= view.vault_links(ino)
            entry: Entry | None = _new(
                Entry, (prefix + name, mode, uid, gid, size, mtime, ctime, ino, nlink, rdev, dev, False)
            )
            if (dev != own_device or ino <= ROOT_INODE) and mode & 0o170000 == 0o040000:
                assert entry is not None
                entry = view.judged(entry, own_device)
            if entry is not None:
                entries.append(entry)
    entries.sort(key=_path)
    return entries


def sizes(view: View, opener: Callable[[bytes], int]) -> list[tuple[bytes, int]]:
    """Directories, and how many entries a walk shows before each, by their names only: that takes a fraction of a
    walk's time. Of a large tree there is a directory every few hundred entries; the last one stands for the end.
    """
    found: list[tuple[bytes, int]] = []
    waiting, count, path = [b""], 0, b""
    while waiting:
        path = waiting.pop()
        try:
            fd = opener(path)
        except OSError as error:
            if error.errno in NOT_THERE:
                continue
            raise
        try:
            if not found or count - found[-1][1] >= _WORTH_KNOWING:
                found.append((path, count))
            prefix, unread = path + b"/" if path else b"", view.unread_in(path)
            below = []
            with os.scandir(fd) as items:
                for item in items:
                    count += 1
                    if item.is_dir(follow_symlinks=False):
                        name = item.name.encode(_ENCODING, "surrogateescape")
                        if name not in unread:
                            below.append(prefix + name)
            below.sort(reverse=True)
            waiting += below
        finally:
            os.close(fd)
    if path and found and found[-1][0] != path:
        found.append((path, count))
    return found
