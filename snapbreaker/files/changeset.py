"""A stored set of changed paths, each with what it was: the form of the undo set and of a restore's inverse.

The file is written whole, fsynced, and named atomically; a SHA-256 at its end tells any other state apart.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import IntEnum
from typing import NamedTuple

from snapbreaker.errors import CheckpointError
from snapbreaker.files import ops
from snapbreaker.files.entry import Details, Entry, sort_key
from snapbreaker.files.tree import Extent

_MAGIC = b"snapbreaker changes 2\n"
_COUNT = struct.Struct("<Q")
_HEAD = struct.Struct("<BIII16s")  # kind, aspects, domain, slot, fingerprint
# 64 bits of nanoseconds end in 2262, and file times may be later: seconds and nanoseconds.
_ENTRY = struct.Struct("<IIIQqIqIQQQQ?")
_DETAILS = struct.Struct("<II?I")
_LENGTH = struct.Struct("<I")
_EXTENT = struct.Struct("<QQQ")
_BLOCK = 1 << 20
_SECOND = 1_000_000_000

ABSENT = bytes(16)  # the fingerprint of a path that is not there


class Kind(IntEnum):
    """What the set knows of a path, and so what going back means."""

    ABSENT = 0  # it was not there
    STORED = 1  # its content lies in the pack
    DISPLACED = 2  # it lies in a slot, whole, with all below it
    METADATA = 3  # only its metadata was another; the content that it has now is its own
    CONTEXT = 4  # an unchanged directory above a changed path


class Record(NamedTuple):
    """One path. ``entry`` and ``details`` are what it was, ``after`` is the fingerprint of what it became.

    ``domain`` and ``slot`` say where it was displaced to, ``extents`` where its content lies in the pack.
    """

    path: bytes
    kind: Kind
    aspects: int  # of ``Aspect``
    entry: Entry | None = None
    details: Details = Details()
    extents: tuple[Extent, ...] = ()
    domain: int = 0
    slot: int = 0
    after: bytes = ABSENT


def fingerprint(entry: Entry, details: Details) -> bytes:
    """16 bytes that change when a path is changed again: type, metadata, and for files size and mtime.

    Inode and ctime are left out: taking a link for a backup, or a restore that puts the very same state back,
    changes them. A directory's mtime and size are left out too: something else in it is no change of its own.
    """
    counted = 0 if entry.is_dir else 1
    facts = (
        entry.mode,
        entry.uid,
        entry.gid,
        entry.rdev,
        entry.subvolume,
        counted * entry.size,
        counted * entry.mtime_ns,
        details,
    )
    return hashlib.blake2b(repr(facts).encode("ascii"), digest_size=16).digest()


def write(directory: int, name: bytes, records: Iterable[Record]) -> None:
    """Write ``records`` as the file ``name`` of the directory. On disk when this returns; sorted by path."""
    temporary = name + b".new"
    with suppress(FileNotFoundError):
        ops.unlink(directory, temporary)
    fd = ops.create(directory, temporary)
    try:
        digest = hashlib.sha256()
        count = 0
        buffer = bytearray(_MAGIC)
        for record in sorted(records, key=lambda record: sort_key(record.path)):
            _encode(record, buffer)
            count += 1
            if len(buffer) >= _BLOCK:
                digest.update(buffer)
                ops.write(fd, bytes(buffer))
                buffer.clear()
        buffer += _COUNT.pack(count)
        digest.update(buffer)
        ops.write(fd, bytes(buffer) + digest.digest())
        ops.fsync(fd)
    finally:
        os.close(fd)
    ops.replace(directory, temporary, name)
    ops.fsync(directory)


def read(directory: int, name: bytes) -> list[Record]:
    """The records, in the order of ``sort_key``. Raises CheckpointError when the file is not whole."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    with open(fd, "rb") as file:
        data = file.read()
    body, digest = data[:-32], data[-32:]
    if not body.startswith(_MAGIC) or hashlib.sha256(body).digest() != digest:
        raise CheckpointError(f"the stored changes {os.fsdecode(name)} are damaged")
    (count,) = _COUNT.unpack(body[-_COUNT.size :])
    records = list(_decode(memoryview(body)[len(_MAGIC) : -_COUNT.size]))
    if len(records) != count:
        raise CheckpointError(f"the stored changes {os.fsdecode(name)} are damaged")
    return records


def _encode(record: Record, out: bytearray) -> None:
    entry, details = record.entry, record.details
    out += _HEAD.pack(record.kind, record.aspects, record.domain, record.slot, record.after)
    _put(out, record.path)
    out.append(entry is not None)
    if entry is None:
        return
    times = (*divmod(entry.mtime_ns, _SECOND), *divmod(entry.ctime_ns, _SECOND))
    out += _ENTRY.pack(*entry[1:5], *times, *entry[7:11], entry.subvolume)
    out += _DETAILS.pack(details.flags, details.project, details.read_only, len(details.xattrs))
    _put(out, details.target)
    for name, value in details.xattrs:
        _put(out, name)
        _put(out, value)
    out += _LENGTH.pack(len(record.extents))
    for extent in record.extents:
        out += _EXTENT.pack(extent.offset, extent.source, extent.length)


def _put(out: bytearray, data: bytes) -> None:
    out += _LENGTH.pack(len(data))
    out += data


def _decode(data: memoryview) -> Iterator[Record]:
    at = 0

    def take(form: struct.Struct) -> tuple[int, ...]:
        nonlocal at
        at += form.size
        return form.unpack_from(data, at - form.size)

    def text() -> bytes:
        nonlocal at
        (length,) = take(_LENGTH)
        at += length
        return bytes(data[at - length : at])

    while at < len(data):
        kind, aspects, domain, slot, after = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        path = text()
        at += 1
        if not data[at - 1]:
            yield Record(path, Kind(kind), aspects, domain=domain, slot=slot, after=after)
            continue
        mode, uid, gid, size, mtime, mtime_ns, ctime, ctime_ns, ino, nlink, rdev, dev, subvolume = take(_ENTRY)
        mtime, ctime = mtime * _SECOND + mtime_ns, ctime * _SECOND + ctime_ns
        entry = Entry(path, mode, uid, gid, size, mtime, ctime, ino, nlink, rdev, dev, bool(subvolume))
        flags, project, read_only, count = take(_DETAILS)
        target = text()
        xattrs = tuple((text(), text()) for _ in range(count))
        (count,) = take(_LENGTH)
        extents = tuple(Extent(*take(_EXTENT)) for _ in range(count))
        details = Details(flags, project, xattrs, target, bool(read_only))
        yield Record(path, Kind(kind), aspects, entry, details, extents, domain, slot, after)
