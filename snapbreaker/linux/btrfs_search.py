"""Which inodes of a btrfs subvolume have changed since a generation, and their paths.

Both are asked of the filesystem's own tree, at the price of the metadata that has changed: nothing is walked.
Structures: <linux/btrfs.h>, <linux/btrfs_tree.h>; behaviour: fs/btrfs/ioctl.c. Both need CAP_SYS_ADMIN.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import sys
from collections.abc import Iterator

from snapbreaker.dataclass import dataclass
from snapbreaker.linux.ioctl import iowr

_MAGIC = 0x94
# struct btrfs_ioctl_search_key: tree (0: that of the descriptor), objectids, offsets, transids, types, items; then
# the size of the buffer that follows (struct btrfs_ioctl_search_args_v2).
_KEY = struct.Struct("=7Q4I4QQ")
_HEADER = struct.Struct("=QQQII")  # struct btrfs_ioctl_search_header: transid, objectid, offset, type, len
_PATHS = struct.Struct("=QQ4QQ")  # struct btrfs_ioctl_ino_path_args: inum, size, reserved, address of the buffer
_FOUND = struct.Struct("=4I")  # struct btrfs_data_container: bytes_left, bytes_missing, elem_cnt, elem_missed
_OFFSET = struct.Struct("=Q")
_TREE_SEARCH_V2 = iowr(_MAGIC, 17, _KEY.size)
_INO_PATHS = iowr(_MAGIC, 35, _PATHS.size)

_ENCODING = sys.getfilesystemencoding()
_INODE_ITEM, _INODE_REF = 1, 12
_LAST_INODE = (1 << 64) - 256  # BTRFS_LAST_FREE_OBJECTID
_FIRST_INODE = 256
_ALL = (1 << 64) - 1
_BUFFER = 1 << 20
_PATHS_BUFFER = 4096  # the kernel fills no more
_ITEM = struct.Struct("=8xQ24xI8xI")  # of struct btrfs_inode_item: transid, nlink, mode
_REFERENCE = struct.Struct("=8xH")  # of struct btrfs_inode_ref: length of the name that follows


class TooManyPathsError(Exception):
    """An inode has more names than the kernel tells."""


@dataclass(slots=True)
class Changed:
    """An inode whose item was written: its mode, number of links, and those of its names (number of the directory,
    name) that came along.
    """

    inode: int
    mode: int
    links: int
    names: list[tuple[int, bytes]]


def changed_inodes(fd: int, generation: int) -> Iterator[Changed]:
    """The inodes in the subvolume of ``fd`` whose item was written in ``generation`` or later.

    Every change of a file writes its inode's item, and a name that comes or goes that of the directory. What is
    not yet on disk is not seen: syncfs(2) first. A whole leaf of the tree comes at once, so of most inodes the
    names come along; there are more where ``links`` says so. Raises OSError.
    """
    inode, kind, offset = _FIRST_INODE, 0, 0
    buffer = bytearray(_KEY.size + _BUFFER)
    found: Changed | None = None
    while True:
        key = (0, inode, _LAST_INODE, offset, _ALL, generation, _ALL, kind, 255, _ALL & 0xFFFFFFFF, 0, 0, 0, 0, 0)
        _KEY.pack_into(buffer, 0, *key, _BUFFER)
        fcntl.ioctl(fd, _TREE_SEARCH_V2, buffer)
        count = _KEY.unpack_from(buffer)[9]
        if not count:
            break
        at = _KEY.size
        for _ in range(count):
            _, inode, offset, kind, length = _HEADER.unpack_from(buffer, at)
            at += _HEADER.size
            if kind == _INODE_ITEM:
                if found is not None:
                    yield found
                    found = None
                written, links, mode = _ITEM.unpack_from(buffer, at)
                if written >= generation:
                    found = Changed(inode, mode, links, [])
            elif kind == _INODE_REF and found is not None and inode == found.inode:
                found.names += [(offset, name) for name in _names(buffer[at : at + length])]
            at += length
        offset += 1
        if offset > _ALL:
            kind, offset = kind + 1, 0
    if found is not None:
        yield found


def _names(references: bytearray) -> Iterator[bytes]:
    at = 0
    while at < len(references):
        (length,) = _REFERENCE.unpack_from(references, at)
        at += _REFERENCE.size + length
        yield bytes(references[at - length : at])


def paths_of(fd: int, inode: int) -> list[bytes]:
    """All names of an inode, relative to the top of the subvolume of ``fd``. Raises OSError (ENOENT: it has none),
    TooManyPathsError.
    """
    buffer = ctypes.create_string_buffer(_PATHS_BUFFER)
    arguments = _PATHS.pack(inode, _PATHS_BUFFER, 0, 0, 0, 0, ctypes.addressof(buffer))
    fcntl.ioctl(fd, _INO_PATHS, arguments)
    _, _, count, missed = _FOUND.unpack_from(buffer)
    if missed:
        raise TooManyPathsError(f"{missed} names of inode {inode} are not told")
    data = buffer.raw
    base = _FOUND.size
    starts = [base + _OFFSET.unpack_from(data, base + number * _OFFSET.size)[0] for number in range(count)]
    return [data[start : data.index(b"\0", start)] for start in starts]


def names_in(fd: int) -> dict[bytes, int]:
    """The names in an open directory with their inodes."""
    with os.scandir(fd) as entries:
        return {entry.name.encode(_ENCODING, "surrogateescape"): entry.inode() for entry in entries}
