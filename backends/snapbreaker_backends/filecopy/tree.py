"""The files as they were, from a manifest: in the pack, kept by a link, or saved by the guard."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from snapbreaker.errors import CheckpointError, ContentLost
from snapbreaker.files.bounds import Bounds
from snapbreaker.files.content import plain_content
from snapbreaker.files.entry import Entry
from snapbreaker.files.manifest import ManifestTree
from snapbreaker.files.tree import Content
from snapbreaker.guard.saved import Saved, SavedFiles, Watch
from snapbreaker_backends.filecopy.links import LinkVault, name_of
from snapbreaker_backends.filecopy.vouched import Vouched


class CopiedTree(ManifestTree):
    """A manifest whose pack is closed with it."""

    def __init__(self, path: str, pack: int) -> None:
        super().__init__(path, pack)
        self._own = pack

    def close(self) -> None:
        super().close()
        if self._own >= 0:
            os.close(self._own)
            self._own = -1


class LinkedTree(CopiedTree):
    """What a link keeps is the file's content only as long as nobody has changed it in place.

    That is known of each inode: the guard was watching, or its ctime is from a time when it was. What was
    changed and not saved is lost: ContentLost, and never something else in its place. Of what lies in a directory
    of ``unheard`` the guard does not know everything (``unheard.py``).
    """

    def __init__(self, path: str, pack: int, vault: str, unheard: Collection[bytes] = ()) -> None:
        super().__init__(path, pack)
        self._unheard = [path and path + b"/" for path in unheard]
        self._links = LinkVault(vault)
        self._saved = SavedFiles(vault)
        self._early = self._saved.early
        self._watch: Watch | None = None
        self._proven: set[int] = set()
        self._vouched = Vouched(vault)

    def close(self) -> None:
        super().close()
        self._links.close()
        self._saved.close()
        self._vouched.close()

    def walk(self, below: bytes = b"") -> Iterator[Entry]:
        return map(self._corrected, super().walk(below)) if self._early else super().walk(below)

    def walk_part(self, bounds: Bounds) -> Iterator[Entry]:
        found = super().walk_part(bounds)
        return map(self._corrected, found) if self._early else found

    def lookup(self, path: bytes) -> Entry | None:
        entry = super().lookup(path)
        return self._corrected(entry) if entry is not None and self._early else entry

    def learned(self) -> tuple[set[int], dict[int, int]]:
        return self._proven, self._vouched.known

    def learn(self, learned: tuple[set[int], dict[int, int]]) -> None:
        self._proven.update(learned[0])
        self._vouched.known.update(learned[1])

    def content(self, entry: Entry) -> Content:
        if not self.is_linked(entry):
            return super().content(entry)
        if entry.ino in self._saved.lost:  # it may have been saved when it was changed already
            raise ContentLost(f"{_shown(entry)} is lost: {self._saved.lost[entry.ino]}")
        if (saved := self._saved.get(entry.ino)) is not None:
            return Content(self._saved.pack(saved.pack), saved.size, saved.extents, owned=False)
        return plain_content(self._open(entry), entry.path)

    def stands_for(self, entry: Entry, other: Entry) -> bool:
        if entry.ino != other.ino or entry.dev != other.dev or not self.is_linked(entry):
            return False
        return self._saved.get(entry.ino) is None and not self._doubt(entry, other)

    def spare_inode(self, entry: Entry) -> tuple[int, bytes] | None:
        """A file that nobody can vouch for comes back too, when size and mtime are its own: verifying tells of it,
        and it would be gone for good otherwise.
        """
        if not self.is_linked(entry) or self._saved.get(entry.ino) is not None:
            return None
        fd = self._linked(entry)
        try:
            facts = os.fstat(fd)
            if (facts.st_size, facts.st_mtime_ns) != (entry.size, entry.mtime_ns) or entry.ino in self._saved.lost:
                self._vouch(entry, facts)
            return (self._links.fd, name_of(entry.ino)) if facts.st_nlink == 1 else None
        finally:
            os.close(fd)

    def holds_inode(self, now: Entry) -> bool:
        return self._links.has(now.ino)

    def _open(self, entry: Entry) -> int:
        fd = self._linked(entry)
        try:
            self._vouch(entry, os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _linked(self, entry: Entry) -> int:
        try:
            return self._links.open(entry.ino)
        except FileNotFoundError as error:
            raise CheckpointError(f"{_shown(entry)}: its link is gone from the vault") from error

    def _vouch(self, entry: Entry, facts: os.stat_result) -> None:
        """Raise ContentLost where a link may not hold what the file held."""
        now = entry._replace(
            size=facts.st_size, mtime_ns=facts.st_mtime_ns, ctime_ns=facts.st_ctime_ns, ino=facts.st_ino
        )
        if doubt := self._doubt(entry, now):
            raise ContentLost(f"{_shown(entry)} is lost: {doubt}")
        self._proven.add(entry.ino)

    def _doubt(self, entry: Entry, now: Entry) -> str:
        """Why the inode may not hold what it held; empty when it does."""
        if entry.ino in self._saved.lost:
            return self._saved.lost[entry.ino]
        if now.size != entry.size or now.ino != entry.ino:
            return "it was changed in place, and what it held before was not saved"
        if now.ctime_ns == entry.ctime_ns or entry.ino in self._proven:
            return ""
        watch = self._watched()
        heard = not any(entry.path.startswith(one) for one in self._unheard)
        if watch.orderly and now.mtime_ns == entry.mtime_ns:
            return ""
        if heard and now.ctime_ns < watch.until_ns:
            if self._watch is not None:  # what is restored now is touched by us only
                self._vouched.add(entry.ino, now.mtime_ns)
            return ""
        if watch.orderly and self._vouched.knows(entry.ino, now.mtime_ns):
            return ""
        if not heard:
            return "a container may have changed it in place, which this kernel does not tell the guard"
        if watch.orderly:
            return "it was changed in place when nobody guarded it"
        return "it was touched after the guard had died, and may have been changed in place"

    def _watched(self) -> Watch:
        if self._watch is not None:
            return self._watch
        watch = self._saved.watch()
        if watch.until_ns < 1 << 64:
            self._watch = watch  # it has ended: that does not change any more
        return watch

    def _corrected(self, entry: Entry) -> Entry:
        """Of a file that was written while the rest was still being recorded: what it was just before."""
        saved: Saved | None = self._early.get(entry.ino)
        if saved is None or not self.is_linked(entry):
            return entry
        return entry._replace(size=saved.size, mtime_ns=saved.mtime_ns)


def _shown(entry: Entry) -> str:
    return os.fsdecode(entry.path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
