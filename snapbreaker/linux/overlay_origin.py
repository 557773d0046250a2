"""What the kernel notes on a file of an upper that it has copied up: the handle of the one in the lower.

The attribute ``overlay.origin`` holds a struct ovl_fb, fs/overlayfs/overlayfs.h.
"""

from __future__ import annotations

import struct
import sys

from snapbreaker.linux.handles import Handle

_HEADER = struct.Struct("=BBBBB16x")  # version, magic, length with this header, flags, handle type; uuid
_VERSION, _MAGIC = 0, 0xFB
_BIG_ENDIAN = 0x1  # OVL_FH_FLAG_BIG_ENDIAN


def encode(handle: Handle) -> bytes:
    """The attribute's value, without the filesystem's uuid."""
    kind, data = handle
    flags = _BIG_ENDIAN if sys.byteorder == "big" else 0
    return _HEADER.pack(_VERSION, _MAGIC, _HEADER.size + len(data), flags, kind) + data


def decode(value: bytes) -> Handle | None:
    """None where it holds no handle: the attribute is empty when the lower's filesystem has none."""
    if len(value) <= _HEADER.size:
        return None
    version, magic, length, _, kind = _HEADER.unpack_from(value)
    if version != _VERSION or magic != _MAGIC or length != len(value):
        return None
    return kind, value[_HEADER.size :]
