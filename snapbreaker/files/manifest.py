"""A manifest as a tree. What it looks like on disk is in ``manifest_format``."""

from __future__ import annotations

import bisect
import hashlib
import os
import zlib
from collections.abc import Iterator
from functools import cached_property

from snapbreaker.errors import CheckpointError
from snapbreaker.files.bounds import Bounds, divide
from snapbreaker.files.entry import Details, Entry, sort_key
from snapbreaker.files.manifest_format import DIGEST, INDEX, MAGIC, TRAILER, Block, Records
from snapbreaker.files.packing import is_linked, unpack_details, unpack_extents
from snapbreaker.files.tree import Content, Tree

_KEPT_BLOCKS = 4


class ManifestTree(Tree):
    """A tree read from a manifest, its files' bytes from the pack ``pack_fd`` (-1: none; it stays the caller's).

    The whole file is checked when it is opened: CheckpointError when it is truncated or altered. After that it is
    read by descriptor, a block at a time.
    """

    def __init__(self, path: str, pack_fd: int = -1) -> None:
        self._path, self._pack = path, pack_fd
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.records, self.index = self._load_index()
        except BaseException:
            os.close(self._fd)
            raise
        self._keys = [sort_key(block.first) for block in self.index]
        self._cache: dict[int, _Block] = {}

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def walk(self, below: bytes = b"") -> Iterator[Entry]:
        if not below:
            for number in range(len(self.index)):
                yield from self._records(number).entries
            return
        inside = below + b"/"
        for number in range(self._block_of(below), len(self.index)):
            for entry in self._records(number).entries:
                if entry.path == below or entry.path.startswith(inside):
                    yield entry
                elif sort_key(entry.path) > sort_key(inside):
                    return

    def parts(self, most: int) -> list[Bounds]:
        sizes, before = [], 0
        for block in self.index:
            sizes.append((block.first, before))
            before += block.records
        return divide([*sizes, (b"", before)], most)

    def walk_part(self, bounds: Bounds) -> Iterator[Entry]:
        first = self._block_of(bounds.start)
        last = len(self.index) if bounds.stop is None else self._block_of(bounds.stop) + 1
        for number in range(first, last):
            inside = first < number < last - 1
            for entry in self._records(number).entries:
                if inside or bounds.holds(entry.path):
                    yield entry

    def blocks(self) -> Iterator[tuple[Block, bytes]]:
        """The whole walk in its stored form: each block, and its compressed bytes."""
        for block in self.index:
            yield block, os.pread(self._fd, block.length, block.offset)

    def lookup(self, path: bytes) -> Entry | None:
        return self._records(self._block_of(path)).by_path.get(path) if self.index else None

    def details(self, entry: Entry) -> Details:
        return unpack_details(self._extras(entry))

    def content(self, entry: Entry) -> Content:
        """See ``Tree.content``; CheckpointError for a path whose content was not recorded."""
        extents = unpack_extents(self._extras(entry))
        if extents is None:
            raise CheckpointError(f"{os.fsdecode(entry.path)!r}: its content is not in the checkpoint")
        return Content(self._pack, entry.size, extents, owned=False)

    def is_linked(self, entry: Entry) -> bool:
        """Whether a hard link keeps the content."""
        return is_linked(self._extras(entry))

    def _extras(self, entry: Entry) -> bytes:
        extras = self._records(self._block_of(entry.path)).extras_of.get(entry.path) if self.index else None
        if extras is None:
            raise CheckpointError(f"{os.fsdecode(entry.path)!r} is not in {self._path}")
        return extras

    def _records(self, number: int) -> _Block:
        """A block. The last few stay, so a walk and questions about what it has just shown take one unpacking."""
        records = self._cache.get(number)
        if records is None:
            if len(self._cache) == _KEPT_BLOCKS:
                del self._cache[next(iter(self._cache))]
            records = self._cache[number] = _Block(self._read_block(number))
        return records

    def _block_of(self, path: bytes) -> int:
        return max(0, bisect.bisect_right(self._keys, sort_key(path)) - 1)

    def _read_block(self, number: int) -> bytes:
        block = self.index[number]
        return zlib.decompress(os.pread(self._fd, block.length, block.offset))

    def _load_index(self) -> tuple[int, list[Block]]:
        size = os.fstat(self._fd).st_size
        end = size - TRAILER.size - DIGEST
        if end < len(MAGIC) or os.pread(self._fd, len(MAGIC), 0) != MAGIC:
            raise CheckpointError(f"{self._path} is not a manifest, or is truncated")
        if _digest(self._fd, size - DIGEST) != os.pread(self._fd, DIGEST, size - DIGEST):
            raise CheckpointError(f"{self._path} is damaged: its checksum does not fit")
        records, offset, length = TRAILER.unpack(os.pread(self._fd, TRAILER.size, end))
        blocks = list(_index(zlib.decompress(os.pread(self._fd, length, offset))))
        return records, blocks


class _Block(Records):
    """A block in which paths are looked up."""

    @cached_property
    def by_path(self) -> dict[bytes, Entry]:
        return {entry[0]: entry for entry in self.entries}

    @cached_property
    def extras_of(self) -> dict[bytes, bytes]:
        return {entry[0]: extras for entry, extras in zip(self.entries, self.extras(), strict=True)}


def _index(data: bytes) -> Iterator[Block]:
    at = 0
    while at < len(data):
        offset, length, records, first = INDEX.unpack_from(data, at)
        at += INDEX.size
        yield Block(offset, length, records, data[at : at + first])
        at += first


def _digest(fd: int, size: int) -> bytes:
    digest, at = hashlib.blake2b(digest_size=DIGEST), 0
    while at < size:
        data = os.pread(fd, min(1 << 20, size - at), at)
        if not data:
            break
        digest.update(data)
        at += len(data)
    return digest.digest()
