"""The stored form of a walk: entries, details and where each file's data lies in a pack, in one checked file.

Layout, integers little endian: ``MAGIC``; blocks of records, each compressed by zlib; the index, compressed too;
the trailer, which ends with a BLAKE2b digest of everything before the digest. The index has offset, length, number
of records and first path of each block. A record is ``_RECORD``, the path (without its directory where the record
before tells it) and, where there is something to say, the details and extents of ``snapbreaker.files.packing``.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from snapbreaker.errors import CheckpointError
from snapbreaker.files.entry import Details, Entry
from snapbreaker.files.packing import is_linked, pack_extras, unpack_details, unpack_extents
from snapbreaker.files.tree import Content, Extent, Tree, sort_key

MAGIC = b"snapbreaker manifest 1\n"
# Lengths of the directory shared with the record before, of the rest of the path, of the extras; mode, uid, gid,
# size; mtime and ctime as whole seconds and nanoseconds (64 bits of nanoseconds end in 2262, file times later);
# ino, nlink, rdev, dev, subvolume.
_RECORD = struct.Struct("<IIIIIIQqIqIQIQQ?")
_INDEX = struct.Struct("<QIII")  # offset, compressed length, records, length of the first path
_TRAILER = struct.Struct("<QQQ")  # records, offset of the index, its compressed length
_DIGEST = 32
_RECORDS_PER_BLOCK = 512
_SECOND = 1_000_000_000

_new = tuple.__new__


class _Block(NamedTuple):
    offset: int
    length: int
    records: int
    first: bytes


class ManifestWriter:
    """Writes a manifest beside ``path`` and puts it in place when it is whole.

    As a context manager it closes at the end and leaves nothing behind after an exception.
    """

    def __init__(self, path: str) -> None:
        self._path, self._partial = path, path + ".partial"
        self._file = open(self._partial, "wb")  # noqa: SIM115
        self._digest = hashlib.blake2b(digest_size=_DIGEST)
        self._offset = self.records = 0
        self._blocks: list[_Block] = []
        self._buffer: list[bytes] = []
        self._first = self._previous = b""
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
        if not self._buffer:
            self._first = path
            shared = 0
        else:
            shared = path.rfind(b"/") + 1
            if shared and not (self._previous + b"/").startswith(path[:shared]):
                shared = 0
        rest = path[shared:]
        self._buffer.append(
            _RECORD.pack(
                shared,
                len(rest),
                len(extras),
                entry.mode,
                entry.uid,
                entry.gid,
                entry.size,
                *divmod(entry.mtime_ns, _SECOND),
                *divmod(entry.ctime_ns, _SECOND),
                entry.ino,
                entry.nlink,
                entry.rdev,
                entry.dev,
                entry.subvolume,
            )
            + rest
            + extras
        )
        self._previous = path
        self.records += 1
        if len(self._buffer) == _RECORDS_PER_BLOCK:
            self._flush()

    def close(self) -> None:
        """Write the rest, fsync, and rename into place; raises OSError, and then there is no manifest."""
        self._flush()
        index_offset = self._offset
        index = b"".join(
            _INDEX.pack(block.offset, block.length, block.records, len(block.first)) + block.first
            for block in self._blocks
        )
        packed = zlib.compress(index, 1)
        self._write(packed)
        self._write(_TRAILER.pack(self.records, index_offset, len(packed)))
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

    def _flush(self) -> None:
        if not self._buffer:
            return
        packed = zlib.compress(b"".join(self._buffer), 1)
        self._blocks.append(_Block(self._offset, len(packed), len(self._buffer), self._first))
        self._write(packed)
        self._buffer = []

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._offset += len(data)


class ManifestTree(Tree):
    """A tree read from a manifest, its files' bytes from the pack ``pack_fd`` (-1: none; it stays the caller's).

    The whole file is checked when it is opened: CheckpointError when it is truncated or altered. After that it is
    read by descriptor, a block at a time.
    """

    def __init__(self, path: str, pack_fd: int = -1) -> None:
        self._path, self._pack = path, pack_fd
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.records, self._blocks = self._load_index()
        except BaseException:
            os.close(self._fd)
            raise
        self._keys = [sort_key(block.first) for block in self._blocks]
        self._cache: dict[int, dict[bytes, tuple[Entry, bytes]]] = {}

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def walk(self, below: bytes = b"") -> Iterator[Entry]:
        if not below:
            for number in range(len(self._blocks)):
                yield from _entries(self._read_block(number))
            return
        inside = below + b"/"
        for number in range(self._block_of(below), len(self._blocks)):
            for entry in _entries(self._read_block(number)):
                if entry.path == below or entry.path.startswith(inside):
                    yield entry
                elif sort_key(entry.path) > sort_key(inside):
                    return

    def packed(self) -> Iterator[tuple[Entry, bytes]]:
        """The whole walk, with the extras of each path as they are stored."""
        for number in range(len(self._blocks)):
            yield from _records(self._read_block(number))

    def lookup(self, path: bytes) -> Entry | None:
        found = self._find(path)
        return found[0] if found else None

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
        found = self._find(entry.path)
        if found is None:
            raise CheckpointError(f"{os.fsdecode(entry.path)!r} is not in {self._path}")
        return found[1]

    def _find(self, path: bytes) -> tuple[Entry, bytes] | None:
        if not self._blocks:
            return None
        number = self._block_of(path)
        block = self._cache.get(number)
        if block is None:
            if len(self._cache) == 4:
                del self._cache[next(iter(self._cache))]
            block = {entry.path: (entry, extras) for entry, extras in _records(self._read_block(number))}
            self._cache[number] = block
        return block.get(path)

    def _block_of(self, path: bytes) -> int:
        return max(0, bisect.bisect_right(self._keys, sort_key(path)) - 1)

    def _read_block(self, number: int) -> bytes:
        block = self._blocks[number]
        return zlib.decompress(os.pread(self._fd, block.length, block.offset))

    def _load_index(self) -> tuple[int, list[_Block]]:
        size = os.fstat(self._fd).st_size
        end = size - _TRAILER.size - _DIGEST
        if end < len(MAGIC) or os.pread(self._fd, len(MAGIC), 0) != MAGIC:
            raise CheckpointError(f"{self._path} is not a manifest, or is truncated")
        if _digest(self._fd, size - _DIGEST) != os.pread(self._fd, _DIGEST, size - _DIGEST):
            raise CheckpointError(f"{self._path} is damaged: its checksum does not fit")
        records, offset, length = _TRAILER.unpack(os.pread(self._fd, _TRAILER.size, end))
        blocks = list(_index(zlib.decompress(os.pread(self._fd, length, offset))))
        return records, blocks


def _entries(data: bytes) -> Iterator[Entry]:
    """The entries of one block: the loop that decides how fast a manifest is read."""
    unpack, header, second, new, make = _RECORD.unpack_from, _RECORD.size, _SECOND, _new, Entry
    at, end, previous = 0, len(data), b""
    while at < end:
        shared, rest, extras, mode, uid, gid, size, ms, mn, cs, cn, ino, nlink, rdev, dev, subvolume = unpack(
            data, at
        )
        at += header
        path = data[at : at + rest]
        if shared:
            path = (previous[:shared] if len(previous) >= shared else previous + b"/") + path
        at += rest + extras
        previous = path
        yield new(
            make,
            (path, mode, uid, gid, size, ms * second + mn, cs * second + cn, ino, nlink, rdev, dev, subvolume),
        )


def _records(data: bytes) -> Iterator[tuple[Entry, bytes]]:
    """The same, with the extras of each."""
    at = 0
    for entry in _entries(data):
        _, rest, extras = struct.unpack_from("<III", data, at)
        at += _RECORD.size + rest
        yield entry, data[at : at + extras]
        at += extras


def _index(data: bytes) -> Iterator[_Block]:
    at = 0
    while at < len(data):
        offset, length, records, first = _INDEX.unpack_from(data, at)
        at += _INDEX.size
        yield _Block(offset, length, records, data[at : at + first])
        at += first


def _digest(fd: int, size: int) -> bytes:
    digest, at = hashlib.blake2b(digest_size=_DIGEST), 0
    while at < size:
        data = os.pread(fd, min(1 << 20, size - at), at)
        if not data:
            break
        digest.update(data)
        at += len(data)
    return digest.digest()


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
