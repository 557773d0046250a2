"""Copying file data inside the kernel: reflinks, ranges, and where the holes are."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import struct
from collections.abc import Iterator

from snapbreaker.linux.ioctl import ior, iow, iowr

# include/uapi/linux/fs.h
_FICLONE = iow(0x94, 9, struct.calcsize("i"))
_CLONE_RANGE = struct.Struct("=qQQQ")  # src_fd, src_offset, src_length, dest_offset
_FICLONERANGE = iow(0x94, 13, _CLONE_RANGE.size)

# include/uapi/linux/fiemap.h
_FIEMAP = struct.Struct("=QQIIII")  # start, length, flags, mapped extents, extent count, reserved
_FIEMAP_EXTENT = struct.Struct("=QQQ16xI12x")  # logical, physical, length, flags
_FS_IOC_FIEMAP = iowr(ord("f"), 11, _FIEMAP.size)
_FLAG_SYNC = 0x1  # write dirty pages first: until then data in space allocated ahead counts as unwritten
_EXTENT_LAST = 0x1
_EXTENT_UNWRITTEN = 0x800
_EXTENTS_PER_CALL = 128
# UNKNOWN, DELALLOC, ENCODED, DATA_ENCRYPTED, NOT_ALIGNED, DATA_INLINE, DATA_TAIL
_EXTENT_UNSURE = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400

# include/uapi/linux/btrfs.h: struct btrfs_ioctl_fs_info_args
_FS_INFO = struct.Struct("=16x16s992x")  # max_id, num_devices; fsid; the rest
_BTRFS_FS_INFO = ior(0x94, 31, _FS_INFO.size)

# Not this filesystem, not this pair of files, not this alignment: the data must be copied in another way.
CANNOT_CLONE = frozenset(
    {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ETXTBSY}
)


def clone_file(source_fd: int, dest_fd: int) -> bool:
    """Make the whole file share ``source_fd``'s data, holes and size included (ioctl_ficlone(2)).

    False where these two files cannot share data; other errors (ENOSPC, EIO) raise OSError.
    """
    return _cloned(dest_fd, _FICLONE, source_fd)


def clone_range(source_fd: int, source: int, length: int, dest_fd: int, dest: int) -> bool:
    """Share one range. Offsets and length are multiples of the block size, unless it ends at the source's end."""
    return _cloned(dest_fd, _FICLONERANGE, _CLONE_RANGE.pack(source_fd, source, length, dest))


def _cloned(dest_fd: int, request: int, argument: int | bytes) -> bool:
    try:
        fcntl.ioctl(dest_fd, request, argument)
    except OSError as error:
        if error.errno in CANNOT_CLONE:
            return False
        raise
    return True


def data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of each run of data below ``size``, by SEEK_DATA and SEEK_HOLE (lseek(2)).

    Moves the file offset. A filesystem that does not know holes answers with one run. Space that was allocated
    ahead and never written counts as a hole, except where its zeros are in the page cache.
    """
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data after ``end``
                return
            raise
        if start < end:
            yield start, end


def unwritten_ranges(fd: int, size: int) -> list[tuple[int, int]]:
    """(start, end) of space that is allocated but was never written (fallocate(2)); [] where FIEMAP is missing."""
    found: list[tuple[int, int]] = []
    start = 0
    while start < size:
        extents = _extents(fd, start, size)
        if not extents:
            break
        for logical, _, length, flags in extents:
            start = logical + length
            if flags & _EXTENT_UNWRITTEN:
                found.append((logical, min(start, size)))
        if extents[-1][3] & _EXTENT_LAST:
            break
    return found


def _extents(fd: int, start: int, end: int) -> list[tuple[int, int, int, int]] | None:
    """The first extents of a range: logical and physical start, length, flags (FIEMAP); None if there is none."""
    buffer = _buffer
    _FIEMAP.pack_into(buffer, 0, start, end - start, _FLAG_SYNC, 0, _EXTENTS_PER_CALL, 0)
    try:
        fcntl.ioctl(fd, _FS_IOC_FIEMAP, buffer)
    except OSError as error:
        if error.errno in CANNOT_CLONE:
            return None
        raise
    count, size = _FIEMAP.unpack_from(buffer)[3], _FIEMAP_EXTENT.size
    return [_FIEMAP_EXTENT.unpack_from(buffer, _FIEMAP.size + number * size) for number in range(count)]


_buffer = bytearray(_FIEMAP.size + _EXTENTS_PER_CALL * _FIEMAP_EXTENT.size)  # not for several threads


def unshared(a: tuple[int, int], b: tuple[int, int], size: int) -> list[tuple[int, int]] | None:
    """The ranges (start, end) in which two open files (descriptor, st_dev) of ``size`` bytes do not lie in the
    same blocks of one filesystem, or are no holes in both; [] when one is a clone of the other.

    None where that cannot be told: the filesystem does not say, the data lies in its metadata, is compressed (one
    extent may then hold several different pieces), or in more extents than one call tells.
    """
    if not _one_filesystem(a, b):
        return None
    ours = _known_extents(a[0], size)
    theirs = _known_extents(b[0], size) if ours is not None else None
    if ours is None or theirs is None:
        return None
    return [] if ours == theirs else _different(ours, theirs, size)


def _different(ours: list[_Mapped], theirs: list[_Mapped], size: int) -> list[tuple[int, int]]:
    ends = {edge for start, end, _ in (*ours, *theirs) for edge in (start, end) if edge < size}
    edges = sorted({0, size} | ends)
    found: list[tuple[int, int]] = []
    at, other = iter(ours), iter(theirs)
    mine, its = next(at, None), next(other, None)
    for start, end in itertools.pairwise(edges):
        while mine is not None and mine[1] <= start:
            mine = next(at, None)
        while its is not None and its[1] <= start:
            its = next(other, None)
        here = mine[2] if mine is not None and mine[0] <= start else None
        there = its[2] if its is not None and its[0] <= start else None
        if here != there:
            found.append((start, end))
    return found


_Mapped = tuple[int, int, tuple[int, int]]  # start, end; where it lies less the start, whether never written


def _known_extents(fd: int, size: int) -> list[_Mapped] | None:
    extents = _extents(fd, 0, size)
    if extents is None or len(extents) == _EXTENTS_PER_CALL or any(e[3] & _EXTENT_UNSURE for e in extents):
        return None
    return [
        (logical, logical + length, (physical - logical, flags & _EXTENT_UNWRITTEN))
        for logical, physical, length, flags in extents
    ]


_fsids: dict[int, bytes] = {}  # of btrfs filesystems, by st_dev: each subvolume has its own


def _one_filesystem(a: tuple[int, int], b: tuple[int, int]) -> bool:
    if a[1] == b[1]:
        return True
    for fd, device in (a, b):
        if device not in _fsids:
            buffer = bytearray(_FS_INFO.size)
            try:
                fcntl.ioctl(fd, _BTRFS_FS_INFO, buffer)
            except OSError:
                return False
            _fsids[device] = _FS_INFO.unpack(buffer)[0]
    return _fsids[a[1]] == _fsids[b[1]]


def copy_range(source: int, offset: int, length: int, destination: int, destination_offset: int) -> int:
    """Copy with copy_file_range(2) as far as it goes, and say how far: 0 where these two files cannot."""
    done = 0
    while done < length:
        try:
            step = os.copy_file_range(source, destination, length - done, offset + done, destination_offset + done)
        except OSError as error:
            if error.errno in CANNOT_CLONE:
                break
            raise
        if step == 0:
            break
        done += step
    return done
