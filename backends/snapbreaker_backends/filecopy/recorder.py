"""How a volume is copied while others go on working on it, so that what is recorded was all true.

1. Everything is copied, except what is open for writing.
2. Writers are frozen, and the regions around their files recorded: entries, details, content, of one instant.
3. The filesystem is synced, and the rest recorded in one walk. What has changed since it was copied is copied
   again; what changes all the time is copied while its writer is held still.
"""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Collection, Iterator, Mapping

from snapbreaker.backend import Creation, Volume
from snapbreaker.errors import CheckpointError
from snapbreaker.files.diff import Proof
from snapbreaker.files.entry import Entry, sort_key
from snapbreaker.files.live import LiveTree
from snapbreaker.files.manifest_writer import ManifestWriter
from snapbreaker.files.policy import PathClass
from snapbreaker.freeze import frozen
from snapbreaker.guard.inodes import InodeSet
from snapbreaker.linux.filesystems import Kind, kind
from snapbreaker.linux.lease import expect_breaks
from snapbreaker.linux.times import are_fine
from snapbreaker.linux.writeback import syncfs, write_back
from snapbreaker.paths import relative
from snapbreaker.writers import Inode, Scan, Writer
from snapbreaker_backends.filecopy.copies import GONE, Copies, Copy, Packed, PackedBlock, Recorded, wait_for_tick
from snapbreaker_backends.filecopy.links import links_of_all
from snapbreaker_backends.filecopy.pack import PackWriter
from snapbreaker_backends.filecopy.regions import entries_of, in_region, regions_of

_BEFORE_HOLDING = 2  # attempts to copy a file that changes, before its writer is looked for and held still
_ATTEMPTS = 100  # in all: a writer that opens and closes the file again and again is not easily met
_TOLD_EVERY = 2000  # entries


class Recorder:
    """One checkpoint of one volume in the making. ``frozen_seconds`` is how long writers were held in all."""

    def __init__(
        self, volume: Volume, creation: Creation, pack: PackWriter, linked: InodeSet | None = None
    ) -> None:
        """``linked`` are the inodes that get a link in this checkpoint's own vault."""
        self._volume, self._policy, self._progress = volume, creation.policy, creation.progress
        self._pack = pack
        self._times_are_fine = are_fine(creation.vault)
        self._tree = live_tree(volume, creation, linked)
        self._copies = Copies(self._tree, pack)
        self._scan = Scan(volume, creation.policy, self._locate)
        self._growing = any(one is PathClass.KEEP_CONTENT for _, one in creation.policy.classes)
        self._linked: dict[Inode, Recorded] = {}
        self._count = 0
        self.frozen_seconds = 0.0
        self.frozen_writers: list[str] = []

    def close(self) -> None:
        self._tree.close()

    def record(self, manifest: ManifestWriter) -> Proof:
        """All three steps; everything but the manifest's end is on disk afterwards."""
        expect_breaks()
        self._first_pass()
        syncfs(self._tree.root_fd)  # the less is dirty, the shorter the sync of what is mapped while all are held
        regions, picture = self._record_written()
        self._tree.forget()
        # Whatever is written through a mapping after this instant gets a later ctime, since the sync
        # write-protects each dirty page: so the instant comes before the sync, and the sync before the walk.
        # Memory has no dirty pages: there nothing is proven, and everything will be compared. So it is where times
        # are whole seconds: a change within the same second does not show.
        proof = Proof.take(synced=kind(self._volume.fstype) is not Kind.MEMORY and self._times_are_fine)
        self._pack.flush()
        syncfs(self._tree.root_fd)
        self._copies.distrust()
        self._count = 0
        for each in self._merged(regions, picture):
            if isinstance(each, PackedBlock):
                manifest.add_block(*each)
            elif isinstance(each, Packed):
                manifest.add_packed(*each)
            else:
                manifest.add(*each)
            self._tell("record")
        self._finished()
        if proof.synced and not proof.valid_now():
            raise CheckpointError("the clock was set while the checkpoint was made", "try again")
        return proof

    def _finished(self) -> None:
        self._pack.flush()
        os.fsync(self._pack.fd)
        self._refuse_unknown_mounts()

    def _refuse_unknown_mounts(self) -> None:
        """A mount hides what is below it, and this one was not there when the scope was taken."""
        for path in self._tree.mounts:
            shown = os.path.join(self._volume.root, os.fsdecode(path))
            raise CheckpointError(f"{shown} was mounted while the checkpoint was made", "try again")

    # Step 1.

    def _first_pass(self) -> None:
        self._copy_all(self._open_for_writing())

    def _copy_all(self, written: Collection[Inode]) -> None:
        for entry in self._tree.walk():
            self._scan.devices.add(entry.dev)
            inode = Inode(entry.dev, entry.ino)
            if (
                stat.S_ISREG(entry.mode)
                and inode not in written
                and not (entry.nlink > 1 and inode in self._copies)
            ):
                self._try(entry, may_change=self._is_growing(entry))
            self._tell("copy")

    def _open_for_writing(self) -> set[Inode]:
        """Copied in step 2 only, since they would be copied again there."""
        entries = [self._tree.lookup(path) for writer in self._scan() for path in writer.paths]
        return {Inode(entry.dev, entry.ino) for entry in entries if entry is not None}

    # Step 2.

    def _record_written(self) -> tuple[list[bytes], list[Recorded]]:
        with frozen(self._scan, self._volume.root) as held:
            paths = {path for writer in held.writers for path in writer.paths}
            self._tree.forget()
            for writer in held.writers:
                self._settle_written(writer)
            regions = regions_of(self._tree, paths)
            entries = [entry for region in regions for entry in entries_of(self._tree, region)]
            for entry in entries:
                # A change after the thaw must show in the ctime.
                wait_for_tick(entry.ctime_ns, self._copies.settled_ns)
            recorded_all = [
                self._recorded_held(entry) if entry.is_file and entry.path in paths else self._recorded(entry)
                for entry in entries
            ]
            picture = [recorded for recorded in recorded_all if recorded is not None]
        self.frozen_seconds += held.seconds
        self.frozen_writers = [str(writer) for writer in held.writers]
        for recorded in picture:
            if recorded.entry.nlink > 1 and not recorded.entry.is_dir:
                self._linked[Inode(recorded.entry.dev, recorded.entry.ino)] = recorded
        return regions, sorted(picture, key=lambda recorded: sort_key(recorded.entry.path))

    def _settle_written(self, writer: Writer) -> None:
        """No copy from before counts, and what is written through a mapping must get a new ctime from now on."""
        for path in writer.paths:
            entry = self._tree.lookup(path)
            if entry is None or not entry.is_file:
                continue
            self._copies.forget(Inode(entry.dev, entry.ino))
            if path in writer.mapped:
                fd = self._tree.open_entry(entry)
                try:
                    write_back(fd)
                finally:
                    os.close(fd)

    def _recorded_held(self, entry: Entry) -> Recorded:
        """Of a file whose writers are held: then no write(2) is going on, and nothing may change."""
        copy = self._copies.take(entry)
        if copy is None or not copy.fits(entry):
            raise self._restless(entry)
        return Recorded(entry, self._tree.details(entry), copy.extents)

    # Step 3.

    def _merged(
        self, regions: Collection[bytes], picture: list[Recorded]
    ) -> Iterator[Recorded | Packed | PackedBlock]:
        rest = self._rest(regions, picture)
        return heapq.merge(picture, rest, key=lambda each: sort_key(each.path)) if picture else rest

    def _rest(
        self, regions: Collection[bytes], picture: list[Recorded]
    ) -> Iterator[Recorded | Packed | PackedBlock]:
        for entry in self._tree.walk():
            if regions and in_region(entry, regions):
                continue
            recorded = self._recorded(entry)
            if recorded is not None:
                yield recorded

    def _recorded(self, entry: Entry) -> Recorded | None:
        """What the manifest gets; None when the path has vanished (a walk would not have shown it then)."""
        try:
            return self._recorded_as_is(entry)
        except OSError as error:
            if error.errno not in GONE:
                raise
            return self._recorded_again(entry)

    def _recorded_as_is(self, entry: Entry) -> Recorded | None:
        if not stat.S_ISREG(entry.mode):
            return Recorded(entry, self._tree.details(entry), None)
        if self._is_growing(entry):
            return self._recorded_growing(entry)
        if self._linked and (known := self._linked.get(Inode(entry.dev, entry.ino))):
            # Another name of a file that was recorded in step 2: it is the file of that instant here too.
            return known._replace(entry=known.entry._replace(path=entry.path))
        copy = self._copies.find(entry)
        if copy is not None:
            return Recorded(entry, self._tree.details(entry), copy.extents)
        return self._recorded_again(entry)

    def _recorded_again(self, entry: Entry) -> Recorded | None:
        """Copied until it stands still, or whoever writes it is held; None when it vanished."""
        current = self._tree.lookup(entry.path)
        for attempt in range(_ATTEMPTS):
            if current is None:
                return None
            if not current.is_file:
                return Recorded(current, self._tree.details(current), None)
            copy = self._try(current, alone=True)
            fresh = self._tree.lookup(entry.path)
            if copy is not None and fresh is not None and copy.fits(fresh) and self._copies.find(fresh):
                return Recorded(fresh, self._tree.details(fresh), copy.extents)
            current = fresh
            if current is not None and attempt >= _BEFORE_HOLDING and (held := self._held(current)):
                return held
        raise self._restless(entry)

    def _held(self, entry: Entry) -> Recorded | None:
        """The file as it is while its writers are held; None when none has it open just now."""
        with frozen(lambda: self._writers_of(entry.path), self._volume.root) as held:
            for writer in held.writers:
                self._settle_written(writer)
            current = self._tree.lookup(entry.path)
            here = bool(held.writers) and current is not None and current.is_file
            recorded = self._recorded_held(current) if here and current is not None else None
        self.frozen_seconds += held.seconds
        return recorded

    def _recorded_growing(self, entry: Entry) -> Recorded:
        """Of a log that goes on growing: what there was of it at one instant."""
        copy = self._copies.find(entry)
        for _ in range(_ATTEMPTS):
            copy = copy or self._copies.take(entry, may_change=True)
        if copy is None:
            raise self._restless(entry)
        then = entry._replace(size=copy.size, mtime_ns=copy.mtime_ns, ctime_ns=copy.ctime_ns)
        return Recorded(then, self._tree.details(entry), copy.extents)

    # Parts of several steps.

    def _try(self, entry: Entry, may_change: bool = False, alone: bool = False) -> Copy | None:
        """A copy, None when the file changed or vanished: step 3 looks again."""
        try:
            return self._copies.take(entry, may_change=may_change, alone=alone)
        except OSError as error:
            if error.errno not in GONE:
                raise
            return None

    def _is_growing(self, entry: Entry) -> bool:
        return self._growing and self._policy.of(entry.path) is PathClass.KEEP_CONTENT

    def _writers_of(self, path: bytes) -> list[Writer]:
        return [writer for writer in self._scan() if path in writer.paths]

    def _locate(self, inodes: Collection[Inode]) -> Mapping[Inode, bytes]:
        wanted, found = set(inodes), {}
        for entry in self._tree.walk():
            if (inode := Inode(entry.dev, entry.ino)) in wanted:
                found[inode] = entry.path
        return found

    def _restless(self, entry: Entry) -> CheckpointError:
        writers = [writer for writer in self._writers_of(entry.path) if writer.pid != os.getpid()]
        who = " and ".join(map(str, writers)) or "a process that was not found (or the kernel: a loop device?)"
        path = self._volume.root.rstrip("/") + "/" + os.fsdecode(entry.path)
        shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").replace("\n", "\\n")
        return CheckpointError(
            f"{shown} changes while it is copied, by {who}", "stop that, or leave the path out with --keep"
        )

    def _tell(self, phase: str) -> None:
        self._count += 1
        if self._count % _TOLD_EVERY == 0:
            self._progress(phase, self._count, self._pack.size)


def live_tree(volume: Volume, creation: Creation, linked: InodeSet | None = None) -> LiveTree:
    """Without the links of all vaults, those in this checkpoint's own one too (``linked``, which may grow)."""
    borrowed = links_of_all(volume.vault_base, but=creation.vault)
    if linked is not None:
        borrowed.append(linked)
    skip = [os.fsencode(relative(path, volume.root)) for path in volume.skip]
    return LiveTree(volume.root, creation.policy, skip=skip, borrowed=borrowed)
