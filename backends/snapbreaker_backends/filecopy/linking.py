"""How a volume is recorded by hard links: nothing is copied but what links cannot keep.

Copied are files that are open for writing, that cannot be linked, and that are likely to be changed in place. The
first walk links everything and reads all details, before the guard makes every open cost something. The last walk
only looks whether anything has changed since. Both are done by several processes, each for a part of the tree.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress

from snapbreaker.backend import Creation, Volume
from snapbreaker.files.bounds import Bounds
from snapbreaker.files.entry import Entry
from snapbreaker.files.manifest_writer import ManifestWriter
from snapbreaker.files.packing import pack_extras
from snapbreaker.files.policy import PathClass
from snapbreaker.files.proof import TICK_NS
from snapbreaker.guard.guard import Guard
from snapbreaker.linux.mountinfo import read_mounts
from snapbreaker.parallel import Counts, how_many, in_parallel
from snapbreaker.paths import is_below, relative
from snapbreaker.writers import Inode
from snapbreaker_backends.filecopy.again import Again, Look
from snapbreaker_backends.filecopy.copies import GONE, Packed, PackedBlock, Recorded
from snapbreaker_backends.filecopy.linker import ANY_SIZE, Linked, Linker
from snapbreaker_backends.filecopy.links import LinkVault
from snapbreaker_backends.filecopy.pack import PackWriter
from snapbreaker_backends.filecopy.recorder import Recorder
from snapbreaker_backends.filecopy.unheard import upper_directories

# Of these everything is copied: they change in place, or are read by programs that refuse files with several links
# (cron its tables, mail tools their spools).
COPIED = ("/etc", "/var/spool", "/var/mail", "/var/lib/dpkg", "/var/lib/systemd")
STATE, SMALL = "/var/lib", 16 << 10  # of this, what is not larger, in bytes


class LinkingRecorder(Recorder):
    """See ``Recorder``. The guard lives on when all is recorded."""

    def __init__(self, volume: Volume, creation: Creation, pack: PackWriter) -> None:
        self._links = LinkVault(creation.vault, create=True)
        super().__init__(volume, creation, pack, self._links.inodes)
        self._creation = creation
        self._guard: Guard | None = None
        self._parts = [Bounds()]
        self._packed: dict[bytes, tuple[Entry, bytes]] = {}  # what was copied in the first walk
        self._copied, self._small = _relative(volume, COPIED), _relative(volume, (STATE,))
        self._copied += [path and path + b"/" for path in upper_directories(volume, read_mounts())]

    def close(self) -> None:
        super().close()
        self._links.close()
        for number in range(len(self._parts)):
            for name in ("first", "again"):
                for path in (self._segment(name, number), self._segment(name, number) + ".partial"):
                    with suppress(FileNotFoundError):
                        os.unlink(path)

    def _segment(self, name: str, number: int) -> str:
        return os.path.join(self._creation.record, f"manifest.{name}.{number}")

    # Step 1.

    def _first_pass(self) -> None:
        self._parts = self._tree.parts(how_many())
        counts = Counts()
        unlinked: list[Entry] = []
        for part in in_parallel(len(self._parts), lambda number: self._link_part(number, counts)):
            self._links.inodes.update(part.inodes)
            self._scan.devices.update(part.devices)
            unlinked += part.unlinked
        for entry in unlinked:
            try:
                self._copy(entry)
            except OSError as error:
                if error.errno not in GONE:
                    raise
            self._tell("copy")
        self._pack.flush()
        assert self._creation.guards is not None
        self._guard = self._creation.guards.start(
            self._volume.mountpoint, self._creation.vault, self._links.inodes
        )
        time.sleep(2 * TICK_NS / 1e9)  # what changes from now on gets a later ctime than its link gave it

    def _link_part(self, number: int, counts: Counts) -> Linked:
        def tell(count: int) -> None:
            counts.set(count)
            if number == 0:
                self._progress("link", counts.sum, 0)

        growing = [path for path, one in self._policy.classes if one is PathClass.KEEP_CONTENT]
        linker = Linker(self._tree, self._links, self._prefers_copy, frozenset(growing), tell)
        with ManifestWriter(self._segment("first", number)) as first:
            return linker.link(self._tree.walk_part(self._parts[number]), first)

    def _copy(self, entry: Entry) -> None:
        if self._is_growing(entry):
            self._try(entry, may_change=True)
        elif not (entry.nlink > 1 and Inode(entry.dev, entry.ino) in self._copies):
            copy = self._try(entry)
            if copy is not None:
                self._packed[entry.path] = entry, pack_extras(self._tree.details(entry), copy.extents)

    def _prefers_copy(self, directory: bytes) -> int:
        """The size in bytes up to which files in a directory are better copied; -1: none."""
        if self._growing and self._policy.of(directory) is PathClass.KEEP_CONTENT:
            return ANY_SIZE
        inside = directory + b"/"
        if any(inside.startswith(one) for one in self._copied):
            return ANY_SIZE
        return SMALL if any(inside.startswith(one) for one in self._small) else -1

    # Step 2.

    def _recorded_held(self, entry: Entry) -> Recorded:
        recorded = super()._recorded_held(entry)
        assert self._guard is not None
        self._guard.copied([entry.ino])
        return recorded

    # Step 3.

    def _rest(
        self, regions: Collection[bytes], picture: list[Recorded]
    ) -> Iterator[Recorded | Packed | PackedBlock]:
        """What is as it was in the first walk keeps what was read then."""
        again = Again(self._tree, self._packed, self._copies, regions, [one.entry.path for one in picture])
        counts = Counts()

        def look(number: int) -> Look:
            def tell(count: int) -> None:
                counts.set(count)
                if number == 0:
                    self._progress("record", counts.sum, self._pack.size)

            return again.look(
                self._parts[number], self._segment("first", number), self._segment("again", number), tell
            )

        for number, found in enumerate(in_parallel(len(self._parts), look)):
            self._tree.mounts.update(found.mounts)
            yield from again.merged(self._segment("again", number), found.changed, self._recorded)

    def _recorded_as_is(self, entry: Entry) -> Recorded | None:
        known = self._linked.get(Inode(entry.dev, entry.ino)) if self._linked else None
        if entry.is_file and known is None and entry.ino in self._links.inodes:
            return Recorded(entry, self._tree.details(entry), None, linked=True)
        return super()._recorded_as_is(entry)

    def _finished(self) -> None:
        super()._finished()
        assert self._guard is not None
        self._guard.complete()


def _relative(volume: Volume, paths: Collection[str]) -> list[bytes]:
    """Prefixes of the volume's paths; ``b""`` where the whole volume lies in one of ``paths``."""
    found = []
    for path in paths:
        if is_below(volume.root, path):
            found.append(b"")
        elif is_below(path, volume.root):
            found.append(os.fsencode(relative(path, volume.root)) + b"/")
    return found
