"""Details and extents as bytes: what a manifest stores of a path beyond its entry. Nothing to say is no bytes."""

from __future__ import annotations

import struct

from snapbreaker.files.entry import Details
from snapbreaker.files.tree import Extent

_HAS_DETAILS, _HAS_EXTENTS, _LINKED = 1, 2, 4
_DETAILS = struct.Struct("<II?IH")  # flags, project, read_only, length of the target, number of xattrs
_XATTR = struct.Struct("<HI")  # lengths of name and value
_COUNT = struct.Struct("<I")
_EXTENT = struct.Struct("<QQQ")
_PLAIN = Details()
ONLY_LINKED = bytes([_LINKED])  # of a file with nothing else to tell


def pack_extras(details: Details, extents: tuple[Extent, ...] | None, linked: bool = False) -> bytes:
    """Both, or ``b""`` when there are no details and no extents are stored.

    ``linked``: the content is in no pack, a hard link in the vault keeps it.
    """
    plain = details == _PLAIN
    if linked and plain:
        return ONLY_LINKED
    if plain and extents is None:
        return b""
    what = (0 if plain else _HAS_DETAILS) | (0 if extents is None else _HAS_EXTENTS) | (_LINKED if linked else 0)
    pieces = [bytes([what])]
    if extents is not None:
        pieces.append(_COUNT.pack(len(extents)))
        pieces += [_EXTENT.pack(extent.offset, extent.source, extent.length) for extent in extents]
    if not plain:
        flags, project, xattrs, target, read_only = details
        pieces.append(_DETAILS.pack(flags, project, read_only, len(target), len(xattrs)) + target)
        for name, value in xattrs:
            pieces.append(_XATTR.pack(len(name), len(value)) + name + value)
    return b"".join(pieces)


def unpack_details(data: bytes) -> Details:
    if not data or not data[0] & _HAS_DETAILS:
        return _PLAIN
    at = 1
    if data[0] & _HAS_EXTENTS:
        at += _COUNT.size + _COUNT.unpack_from(data, at)[0] * _EXTENT.size
    flags, project, read_only, target_length, count = _DETAILS.unpack_from(data, at)
    at += _DETAILS.size
    target = data[at : at + target_length]
    at += target_length
    xattrs = []
    for _ in range(count):
        name, value = _XATTR.unpack_from(data, at)
        at += _XATTR.size
        xattrs.append((data[at : at + name], data[at + name : at + name + value]))
        at += name + value
    return Details(flags, project, tuple(xattrs), target, read_only)


def is_linked(data: bytes) -> bool:
    return bool(data) and bool(data[0] & _LINKED)


def unpack_extents(data: bytes) -> tuple[Extent, ...] | None:
    """The extents; None when none were stored, which is not the same as none at all."""
    if not data or not data[0] & _HAS_EXTENTS:
        return None
    (count,) = _COUNT.unpack_from(data, 1)
    start = 1 + _COUNT.size
    return tuple(Extent(*fields) for fields in _EXTENT.iter_unpack(data[start : start + count * _EXTENT.size]))
