"""Writing a manifest, see ``manifest_format``."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib

from snapbreaker.files.entry import Details, Entry, sort_key
from snapbreaker.files.manifest_format import (
    DIGEST,
    INDEX,
    MAGIC,
    RECORDS_PER_BLOCK,
    TRAILER,
    Block,
    pack_records,
)
from snapbreaker.files.packing import pack_extras
from snapbreaker.files.tree import Extent


class ManifestWriter:
    """Writes a manifest beside ``path`` and puts it in place when it is whole.

    As a context manager it closes at the end and leaves nothing behind after an exception.
    """

    def __init__(self, path: str) -> None:
        self._path, self._partial = path, path + ".partial"
        self._file = open(self._partial, "wb")  # noqa: SIM115
        self._digest = hashlib.blake2b(digest_size=DIGEST)
        self._offset = self.records = 0
        self._blocks: list[Block] = []
        self._entries: list[Entry] = []
        self._extras: list[bytes] = []
        self._previous = b""
        self._write(MAGIC)

    def add(
        self,
        entry: Entry,
        details: Details,
        extents: tuple[Extent, ...] | None = None,
        linked: bool = False,
    ) -> None:
        """Add one path. They must come in the order of a walk (ValueError).

        ``extents`` is where a regular file's data lies in the pack; None: its content is not stored there.
        ``linked``: a hard link keeps it.
        """
        self.add_packed(entry, pack_extras(details, extents, linked))

    def add_packed(self, entry: Entry, extras: bytes) -> None:
        """The same with what ``pack_extras`` made, or another manifest holds."""
        path = entry.path
        if self.records and sort_key(path) <= sort_key(self._previous):
            raise ValueError(f"manifest: {path!r} does not come after {self._previous!r}")
        self._entries.append(entry)
        self._extras.append(extras)
        self._previous = path
        self.records += 1
        if len(self._entries) == RECORDS_PER_BLOCK:
            self.cut()

    def add_block(self, block: Block, packed: bytes) -> None:
        """The same with a block that another manifest holds (``ManifestTree.blocks``)."""
        self.cut()
        if self.records and sort_key(block.first) <= sort_key(self._previous):
            raise ValueError(f"manifest: {block.first!r} does not come after {self._previous!r}")
        self._blocks.append(block._replace(offset=self._offset))
        self._write(packed)
        self._previous = block.first
        self.records += block.records

    def close(self) -> None:
        """Write the rest, fsync, and rename into place; raises OSError, and then there is no manifest."""
        self.cut()
        index_offset = self._offset
        index = b"".join(
            INDEX.pack(block.offset, block.length, block.records, len(block.first)) + block.first
            for block in self._blocks
        )
        packed = zlib.compress(index, 1)
        self._write(packed)
        self._write(TRAILER.pack(self.records, index_offset, len(packed)))
        self._file.write(self._digest.digest())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.rename(self._partial, self._path)
        _sync_directory(os.path.dirname(self._path) or ".")

    def abort(self) -> None:
        """Leave nothing behind. Idempotent."""
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._partial)

    def __enter__(self) -> ManifestWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            self.close()
        except BaseException:
            self.abort()
            raise

    def cut(self) -> None:
        """What was added so far and what comes are in different blocks."""
        if not self._entries:
            return
        packed = zlib.compress(pack_records(self._entries, self._extras), 1)
        self._blocks.append(Block(self._offset, len(packed), len(self._entries), self._entries[0].path))
        self._write(packed)
        self._entries, self._extras = [], []

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._offset += len(data)


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
