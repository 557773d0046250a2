"""The first walk: a link to every file, and all that is to be known of it. This loop decides how long a checkpoint
takes, so it asks the kernel for nothing twice.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from snapbreaker.files.entry import Details, Entry
from snapbreaker.files.live import LiveTree
from snapbreaker.files.manifest_writer import ManifestWriter
from snapbreaker.files.packing import ONLY_LINKED, pack_extras
from snapbreaker.guard.inodes import InodeSet
from snapbreaker.linux.inode import get_flags_and_project
from snapbreaker.linux.lease import nobody_writes
from snapbreaker.linux.xattr import read_xattrs
from snapbreaker_backends.filecopy.copies import GONE
from snapbreaker_backends.filecopy.links import LinkVault

ANY_SIZE = 1 << 63

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOATIME | os.O_CLOEXEC
_TOLD_EVERY = 1000  # entries

_make = tuple.__new__


class Linked(NamedTuple):
    """What was linked, what has to be copied, and the devices of both."""

    inodes: InodeSet
    unlinked: list[Entry]
    devices: set[int]


class Linker:
    """``prefers_copy`` tells up to which size the files in a directory are not even tried, ``growing`` are single
    files of that kind.
    """

    def __init__(
        self,
        tree: LiveTree,
        links: LinkVault,
        prefers_copy: Callable[[bytes], int],
        growing: Collection[bytes],
        tell: Callable[[int], None],
    ) -> None:
        self._tree, self._links, self._tell = tree, links, tell
        self._prefers_copy, self._growing = prefers_copy, growing

    def link(self, entries: Iterator[Entry], first: ManifestWriter) -> Linked:
        """Go through a part of a walk, and write to ``first`` what is complete: a file that is open for writing is
        not, nor what vanishes or is replaced just now.
        """
        unlinked: list[Entry] = []
        devices: set[int] = set()
        last, parent, copied, count = b"?", -1, -1, 0
        for entry in entries:
            path, mode = entry[0], entry[1]
            count += 1
            if count % _TOLD_EVERY == 0:
                self._tell(count)
            devices.add(entry[10])
            try:
                if mode & 0o170000 != stat.S_IFREG:
                    first.add(entry, self._tree.details(entry))
                    continue
                slash = path.rfind(b"/") + 1
                if (directory := path[:slash]) != last:
                    parent, last = self._tree.open_parent(path)[0], directory
                    copied = self._prefers_copy(directory[:-1])
                if entry[4] <= copied or path in self._growing:
                    unlinked.append(entry)
                    continue
                fd = os.open(path[slash:], _FILE, dir_fd=parent)
                try:
                    if not self._link(entry, fd, first):
                        unlinked.append(entry)
                finally:
                    os.close(fd)
            except OSError as error:
                if error.errno not in GONE:
                    raise
        return Linked(self._links.inodes, unlinked, devices)

    def _link(self, entry: Entry, fd: int, first: ManifestWriter) -> bool:
        """False where it has to be copied."""
        inode = entry[7]
        known = entry[8] > 1 and inode in self._links.inodes
        if not known:
            if not nobody_writes(fd):
                return True  # copied in step 2, while its writer is held still
            if not self._links.add(fd, inode):
                return False
        facts = os.fstat(fd)
        mode, ino, dev, nlink, uid, gid, size = facts[:7]
        if ino != inode or mode & 0o170000 != stat.S_IFREG:
            if not known:  # the path was given to another file just now, and that has the wrong number
                self._links.remove_stranger(inode)
            return True
        flags, project = get_flags_and_project(fd)
        xattrs = read_xattrs(fd)
        if flags or project or xattrs:
            extras = pack_extras(Details(flags, project, xattrs), None, linked=True)
        else:
            extras = ONLY_LINKED
        mtime, ctime = facts.st_mtime_ns, facts.st_ctime_ns
        nlink -= self._tree.vault_links(ino)
        own: Entry = _make(
            Entry, (entry[0], mode, uid, gid, size, mtime, ctime, ino, nlink, facts.st_rdev, dev, False)
        )
        first.add_packed(own, extras)
        return True
