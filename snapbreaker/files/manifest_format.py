"""The stored form of a walk: entries, details and where each file's data lies in a pack, in one checked file.

Layout, integers little endian: ``MAGIC``; blocks of records, each compressed by zlib; the index, compressed too;
the trailer, which ends with a BLAKE2b digest of everything before the digest. The index has offset, length, number
of records and first path of each block.

A block is ``_HEAD``; a column for each field of ``Entry`` but the path, and one for the lengths of the extras; the
paths, each followed by a zero byte; the extras: where there is something to say, the details and extents of
``snapbreaker.files.packing``. Columns are read by a few calls for a whole block, not by some for each record.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise, repeat
from typing import NamedTuple

from snapbreaker.files.entry import Entry

MAGIC = b"snapbreaker manifest 2\n"
INDEX = struct.Struct("<QIII")  # offset, compressed length, records, length of the first path
TRAILER = struct.Struct("<QQQ")  # records, offset of the index, its compressed length
DIGEST = 32
RECORDS_PER_BLOCK = 512

_HEAD = struct.Struct("<II?")  # records, length of the paths, whether times are seconds and nanoseconds
# Fields of ``Entry`` from the mode on. 64 bits of nanoseconds end in 2262; file times may be later.
_NARROW, _WIDE = "IIIQqqQQQQ?", "IIIQqqQQQQ?II"
_SECOND = 1_000_000_000
_MTIME, _CTIME = 4, 5  # columns

_new = tuple.__new__


class Block(NamedTuple):
    """Records that are compressed together. The paths of one are told by none but themselves."""

    offset: int
    length: int
    records: int
    first: bytes


class Records:
    """One block, unpacked."""

    def __init__(self, data: bytes) -> None:
        count, self._paths_length, wide = _HEAD.unpack_from(data)
        layout = _layout(count, _WIDE if wide else _NARROW)
        columns = list(_columns(struct.unpack_from(layout, data, _HEAD.size), count))
        self._data, self._lengths = data, columns.pop(0)
        if wide:
            columns[_CTIME] = _joined(columns[_CTIME], columns.pop())
            columns[_MTIME] = _joined(columns[_MTIME], columns.pop())
        self._at = _HEAD.size + struct.calcsize(layout)
        paths = data[self._at : self._at + self._paths_length].split(b"\0")
        self.entries: list[Entry] = list(map(_new, repeat(Entry), zip(paths, *columns, strict=False)))

    def extras(self) -> Iterator[bytes]:
        """Of each entry."""
        start = self._at + self._paths_length
        return (self._data[a:b] for a, b in pairwise(accumulate(self._lengths, initial=start)))


def pack_records(entries: Sequence[Entry], extras: Sequence[bytes]) -> bytes:
    """The block of ``entries`` and the extras of each."""
    paths, *columns = zip(*entries, strict=True)
    joined = b"\0".join(paths) + b"\0"
    lengths = tuple(map(len, extras))
    try:
        values, wide = _packed(_NARROW, lengths, columns), False
    except struct.error:
        split = [[divmod(time, _SECOND) for time in columns[which]] for which in (_MTIME, _CTIME)]
        columns[_MTIME], columns[_CTIME] = (tuple(seconds for seconds, _ in one) for one in split)
        columns += [tuple(nanoseconds for _, nanoseconds in one) for one in split]
        values, wide = _packed(_WIDE, lengths, columns), True
    return b"".join([_HEAD.pack(len(entries), len(joined), wide), values, joined, *extras])


def _packed(kinds: str, lengths: Sequence[int], columns: Sequence[Sequence[int]]) -> bytes:
    values = (value for column in (lengths, *columns) for value in column)
    return struct.pack(_layout(len(lengths), kinds), *values)


def _layout(count: int, kinds: str) -> str:
    return "<" + "".join(f"{count}{kind}" for kind in "I" + kinds)


def _columns(values: tuple[int, ...], count: int) -> Iterator[tuple[int, ...]]:
    return (values[at : at + count] for at in range(0, len(values), count))


def _joined(seconds: Sequence[int], nanoseconds: Sequence[int]) -> tuple[int, ...]:
    return tuple(s * _SECOND + n for s, n in zip(seconds, nanoseconds, strict=True))
