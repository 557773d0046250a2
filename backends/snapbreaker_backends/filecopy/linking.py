"""How a volume is recorded by hard links: nothing is copied but what links cannot keep.

Copied are files that are open for writing, that cannot be linked, and that are likely to be changed in place. The
first walk links everything and reads all details, before the guard makes every open cost something. The last walk
only looks whether anything has changed since.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import suppress

from snapbreaker.backend import Creation, Volume
from snapbreaker.files.entry import Details, Entry
from snapbreaker.files.manifest import ManifestTree, ManifestWriter
from snapbreaker.files.proof import TICK_NS
from snapbreaker.files.tree import sort_key
from snapbreaker.guard.guard import Guard
from snapbreaker.linux.inode import get_flags, get_project
from snapbreaker.linux.lease import is_open_for_writing
from snapbreaker.linux.xattr import read_xattrs
from snapbreaker.paths import is_below, relative
from snapbreaker.writers import Inode
from snapbreaker_backends.filecopy.copies import GONE, Packed, Recorded
from snapbreaker_backends.filecopy.links import LinkVault
from snapbreaker_backends.filecopy.pack import PackWriter
from snapbreaker_backends.filecopy.recorder import Recorder
from snapbreaker_backends.filecopy.regions import in_region

# Of these everything is copied: they change in place, or are read by programs that refuse files with several links
# (cron its tables, mail tools their spools).
COPIED = ("/etc", "/var/spool", "/var/mail", "/var/lib/dpkg", "/var/lib/systemd")
STATE, SMALL = "/var/lib", 16 << 10  # of this, what is not larger, in bytes

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOATIME | os.O_CLOEXEC
_FIRST = "manifest.first"
_REGULAR = 0o100000


class LinkingRecorder(Recorder):
    """See ``Recorder``. The guard lives on when all is recorded."""

    def __init__(self, volume: Volume, creation: Creation, pack: PackWriter) -> None:
        self._links = LinkVault(creation.vault, create=True)
        super().__init__(volume, creation, pack, self._links.inodes)
        self._creation = creation
        self._guard: Guard | None = None
        self._first_path = os.path.join(creation.record, _FIRST)
        self._copied, self._small = _relative(volume, COPIED), _relative(volume, (STATE,))

    def close(self) -> None:
        super().close()
        self._links.close()
        with suppress(FileNotFoundError):
            os.unlink(self._first_path)

    @property
    def linked(self) -> int:
        """How many inodes are kept by a link."""
        return len(self._links.inodes)

    # Step 1.

    def _first_pass(self) -> None:
        with ManifestWriter(self._first_path) as first:
            for entry in self._tree.walk():
                self._scan.devices.add(entry.dev)
                with suppress_gone():
                    self._take(entry, first)
                self._tell("link")
        self._links.remove_strangers()
        self._pack.flush()
        assert self._creation.guards is not None
        self._guard = self._creation.guards.start(
            self._volume.mountpoint, self._creation.vault, self._links.inodes
        )
        time.sleep(2 * TICK_NS / 1e9)  # what changes from now on gets a later ctime than its link gave it

    def _take(self, entry: Entry, first: ManifestWriter) -> None:
        if entry.mode & 0o170000 != _REGULAR:
            first.add(entry, self._tree.details(entry))
        elif self._is_growing(entry):
            self._try(entry, may_change=True)
        elif not self._prefers_copy(entry) and self._link(entry, first):
            pass
        elif not (entry.nlink > 1 and Inode(entry.dev, entry.ino) in self._copies):
            copy = self._try(entry)
            if copy is not None:
                first.add(entry, self._tree.details(entry), copy.extents)

    def _link(self, entry: Entry, first: ManifestWriter) -> bool:
        """False where it has to be copied."""
        parent, name = self._tree.open_parent(entry.path)
        fd = os.open(name, _FILE, dir_fd=parent)
        try:
            inode = entry.ino
            if inode not in self._links.inodes:
                if is_open_for_writing(fd):
                    return True  # copied in step 2, while its writer is held still
                if not self._links.add(parent, name, inode):
                    return False
            facts = os.fstat(fd)
            if facts.st_ino == inode and stat.S_ISREG(facts.st_mode):
                details = Details(get_flags(fd), get_project(fd), read_xattrs(fd))
                first.add(_entry(entry.path, facts), details, linked=True)
            return True
        finally:
            os.close(fd)

    def _prefers_copy(self, entry: Entry) -> bool:
        path = entry.path
        if any(not one or path.startswith(one) for one in self._copied):
            return True
        return entry.size <= SMALL and any(not one or path.startswith(one) for one in self._small)

    # Step 3.

    def _rest(self, regions: Collection[bytes]) -> Iterator[Recorded | Packed]:
        """What is as it was in the first walk keeps what was read then."""
        with ManifestTree(self._first_path) as tree:
            earlier = tree.packed()
            first, extras = next(earlier, (None, b""))
            for entry in self._tree.walk():
                if regions and in_region(entry, regions):
                    continue
                path = entry[0]
                if first is not None and first[0] != path:
                    key = sort_key(path)
                    while first is not None and sort_key(first[0]) < key:
                        first, extras = next(earlier, (None, b""))
                if first is not None and first[0] == path and first[1:10] == entry[1:10] and self._is_kept(entry):
                    yield Packed(entry, extras)
                elif (recorded := self._recorded(entry)) is not None:
                    yield recorded

    def _is_kept(self, entry: Entry) -> bool:
        if entry.mode & 0o170000 != _REGULAR or entry.ino in self._links.inodes:
            return True
        return self._copies.find(entry) is not None

    def _recorded_as_is(self, entry: Entry) -> Recorded | None:
        known = self._linked.get(Inode(entry.dev, entry.ino)) if self._linked else None
        if entry.is_file and known is None and entry.ino in self._links.inodes:
            return Recorded(entry, self._tree.details(entry), None, linked=True)
        return super()._recorded_as_is(entry)

    # Step 2.

    def _recorded_held(self, entry: Entry) -> Recorded:
        recorded = super()._recorded_held(entry)
        assert self._guard is not None
        self._guard.copied([entry.ino])
        return recorded

    def _finished(self) -> None:
        super()._finished()
        assert self._guard is not None
        self._guard.complete()


class suppress_gone:
    """A file that vanishes during the first walk is none; the last walk looks again."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        return isinstance(error, OSError) and error.errno in GONE


def _entry(path: bytes, facts: os.stat_result) -> Entry:
    return Entry(
        path,
        facts.st_mode,
        facts.st_uid,
        facts.st_gid,
        facts.st_size,
        facts.st_mtime_ns,
        facts.st_ctime_ns,
        facts.st_ino,
        facts.st_nlink - 1,  # without ours
        facts.st_rdev,
        facts.st_dev,
    )


def _relative(volume: Volume, paths: Collection[str]) -> list[bytes]:
    """Prefixes of the volume's paths; ``b""`` where the whole volume lies in one of ``paths``."""
    found = []
    for path in paths:
        if is_below(volume.root, path):
            found.append(b"")
        elif is_below(path, volume.root):
            found.append(os.fsencode(relative(path, volume.root)) + b"/")
    return found
