"""The stored form of a walk: entries, details and where each file's data lies in a pack, in one checked file.

Layout, integers little endian: ``MAGIC``; blocks of records, each compressed by zlib; the index, compressed too;
the trailer, which ends with a BLAKE2b digest of everything before the digest. The index has offset, length, number
of records and first path of each block. A record is ``_RECORD``, the path (without its directory where the record
before tells it) and, where there is something to say, the details and extents of ``snapbreaker.files.packing``.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

MAGIC = b"snapbreaker manifest 1\n"
# Lengths of the directory shared with the record before, of the rest of the path, of the extras; mode, uid, gid,
# size; mtime and ctime as whole seconds and nanoseconds (64 bits of nanoseconds end in 2262, file times later);
# ino, nlink, rdev, dev, subvolume.
RECORD = struct.Struct("<IIIIIIQqIqIQIQQ?")
INDEX = struct.Struct("<QIII")  # offset, compressed length, records, length of the first path
TRAILER = struct.Struct("<QQQ")  # records, offset of the index, its compressed length
DIGEST = 32
RECORDS_PER_BLOCK = 512
SECOND = 1_000_000_000


class Block(NamedTuple):
    """Records that are compressed together. The paths of one are told by none but themselves."""

    offset: int
    length: int
    records: int
    first: bytes
