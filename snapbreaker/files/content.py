"""The bytes of regular files: where they lie, copied with their holes, compared exactly."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator

from snapbreaker.files.entry import Entry
from snapbreaker.files.tree import Content, Extent, Tree
from snapbreaker.linux.clone import (
    clone_file,
    clone_range,
    copy_range,
    unshared,
    unwritten_ranges,
)
from snapbreaker.linux.libc import failure
from snapbreaker.progress import STEP, moved

_BLOCK = 1 << 20
_ZEROS = bytes(_BLOCK)
# The page cache knows holes by the page, so two maps of the same file agree only as far as that.
_GRAIN = 4096

# Data in a pack begins at multiples of this, so that it can be shared in both directions.
_PACK_GRAIN = 4096

Range = tuple[int, int]


def plain_content(fd: int, path: bytes) -> Content:
    """The content of an open regular file, else ESTALE; the descriptor is closed with it, or when this fails. The
    ``path`` is for the message.
    """
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise failure("open", path, errno.ESTALE)
        return Content(fd, status.st_size, device=status.st_dev)
    except BaseException:
        os.close(fd)
        raise


def copy_content(content: Content, dest_fd: int, clone: bool = True) -> int:
    """Write ``content`` to the empty regular file ``dest_fd``: same bytes, same holes, same size.

    With ``clone`` data is shared (reflinked) where the filesystem can, wholly or extent by extent. Returns the
    number of bytes that had to be copied. Raises OSError; EIO when the source is shorter than it says.
    """
    if clone and _is_plain(content) and clone_file(content.fd, dest_fd):
        if os.fstat(dest_fd).st_size == content.size:
            return 0
        os.ftruncate(dest_fd, 0)  # the source changed its size meanwhile
    copied = 0
    extents = _whole(content)
    # The size first: xfs allocates ahead of writes that extend a file, and what is read of that counts as data.
    os.ftruncate(dest_fd, content.size)
    block = os.fstatvfs(dest_fd).f_bsize if clone else 0
    for extent in extents:
        if not (clone and _clone_extent(content.fd, extent, dest_fd, block)):
            clone = False
            _copy_extent(content.fd, extent, dest_fd)
            copied += extent.length
    os.ftruncate(dest_fd, content.size)
    return copied


def append_content(content: Content, pack_fd: int, end: int) -> tuple[tuple[Extent, ...], int]:
    """Store the data of ``content`` at ``end``, a multiple of 4096, in the pack file ``pack_fd``.

    Data is shared where the filesystem can. Returns where it lies and the next ``end``. Raises OSError.
    """
    block = os.fstatvfs(pack_fd).f_bsize
    stored = []
    for extent in _whole(content):
        target = Extent(end, extent.source, extent.length)
        if _PACK_GRAIN % block or not _clone_extent(content.fd, target, pack_fd, block):
            _copy_extent(content.fd, target, pack_fd)
        stored.append(Extent(extent.offset, end, extent.length))
        end += -(-extent.length // _PACK_GRAIN) * _PACK_GRAIN
    os.ftruncate(pack_fd, end)
    return tuple(stored), end


def same_content(a: Content, b: Content, where: Iterable[Range] | None = None) -> bool:
    """Whether both hold the same bytes, however sparse each is. ``where`` they may not, if that is known."""
    if a.size != b.size:
        return False
    read = 0
    for start, end in _where_data_lies(a, b) if where is None else where:
        for offset in range(start, end, _BLOCK):
            length = min(_BLOCK, end - offset)
            if _read(a, offset, length) != _read(b, offset, length):
                return False
            read += length
            if read >= STEP:
                moved(read)
                read = 0
    return True


def beginning(tree: Tree, entry: Entry, length: int) -> bytes:
    """The first ``length`` bytes of a file of ``tree`` that has as many. Raises OSError."""
    content = tree.content(entry)
    try:
        return _read(content, 0, length)
    finally:
        content.close()


def same_sparseness(a: Content, b: Content) -> bool:
    """Whether both have their holes at the same places, to a grain of 4096 bytes.

    A hole that is data of zeros on the other side differs. Space that is allocated and was never written does not
    count: it shows as a hole or as data of zeros, depending on whether someone has read it since it was cached.
    """
    if _data(a) == _data(b):
        return True
    different = _symmetric_difference(_grains(_data(a), a.size), _grains(_data(b), b.size))
    if not different:
        return True
    undecided = sorted(_unwritten(a) + _unwritten(b))
    return all(any(start <= s and e <= end for start, end in _merge(undecided)) for s, e in different)


def not_shared(a: Content, b: Content) -> list[Range] | None:
    """Where two files of one size do not lie in the same blocks on disk, or in holes; None if it is not known."""
    return unshared((a.fd, a.device), (b.fd, b.device), a.size) if a.plain and b.plain else None


def _where_data_lies(a: Content, b: Content) -> Iterable[Range]:
    there, here = _data(a), _data(b)
    return there if there == here else _union(there, here)


def _whole(content: Content) -> tuple[Extent, ...]:
    """The extents of a file that is not shorter than its content was when it was opened: else EIO."""
    extents = content.extents
    if content.plain and os.fstat(content.fd).st_size < content.size:
        raise failure("read: the file is shorter than it was", code=errno.EIO)
    return extents


def _is_plain(content: Content) -> bool:
    return content.plain and os.fstat(content.fd).st_size == content.size


def _clone_extent(source_fd: int, extent: Extent, dest_fd: int, block: int) -> bool:
    # Whole blocks only: what is shared beyond the extent's end is cut off by the final ftruncate, since only a
    # file's last extent can end inside a block. A range that ends at the source's end may be any length.
    available = os.fstat(source_fd).st_size - extent.source
    if extent.source % block or extent.offset % block or available < extent.length:
        return False
    whole = -(-extent.length // block) * block
    return clone_range(source_fd, extent.source, min(whole, available), dest_fd, extent.offset)


def _copy_extent(source_fd: int, extent: Extent, dest_fd: int) -> None:
    # For a small extent two plain calls are as quick.
    small = extent.length <= _GRAIN
    done = 0
    while not small and done < extent.length:
        length = min(STEP, extent.length - done)
        step = copy_range(source_fd, extent.source + done, length, dest_fd, extent.offset + done)
        done += step
        if step < length:
            break
        if done < extent.length:
            moved(step)
    while done < extent.length:
        data = os.pread(source_fd, min(_BLOCK, extent.length - done), extent.source + done)
        if not data:
            raise failure("read: the file is shorter than it was", code=errno.EIO)
        view = memoryview(data)
        while view:
            written = os.pwrite(dest_fd, view, extent.offset + done)
            view = view[written:]
            done += written


def _data(content: Content) -> list[Range]:
    return [(extent.offset, extent.offset + extent.length) for extent in content.extents]


def _union(a: Iterable[Range], b: Iterable[Range]) -> list[Range]:
    return list(_merge(sorted([*a, *b])))


def _merge(ranges: Iterable[Range]) -> Iterator[Range]:
    """Ranges in order, those that touch joined."""
    last: Range | None = None
    for start, end in ranges:
        if last is not None and start <= last[1]:
            last = (last[0], max(last[1], end))
            continue
        if last is not None:
            yield last
        last = (start, end)
    if last is not None:
        yield last


def _read(content: Content, offset: int, length: int) -> bytes:
    """``length`` bytes at ``offset``, zeros for holes; shorter when the file became shorter meanwhile."""
    if content.plain:
        return os.pread(content.fd, length, offset)
    pieces: list[bytes] = []
    end, at = offset + length, offset
    first = _first_after(content.extents, offset)
    if first < len(content.extents):
        extent = content.extents[first]
        if extent.offset <= offset and end <= extent.offset + extent.length:
            return os.pread(content.fd, length, extent.source + offset - extent.offset)
    for extent in content.extents[first:]:
        if extent.offset >= end:
            break
        start = max(extent.offset, at)
        stop = min(extent.offset + extent.length, end)
        pieces.append(_ZEROS[: start - at])
        data = os.pread(content.fd, stop - start, extent.source + start - extent.offset)
        pieces.append(data)
        if len(data) < stop - start:
            return b"".join(pieces)
        at = stop
    pieces.append(_ZEROS[: end - at])
    return b"".join(pieces)


def _first_after(extents: tuple[Extent, ...], offset: int) -> int:
    """The index of the first extent that ends after ``offset``."""
    low, high = 0, len(extents)
    while low < high:
        middle = (low + high) // 2
        if extents[middle].offset + extents[middle].length > offset:
            high = middle
        else:
            low = middle + 1
    return low


def _grains(ranges: Iterable[Range], size: int) -> list[Range]:
    rounded = ((start - start % _GRAIN, min(-(-end // _GRAIN) * _GRAIN, size)) for start, end in ranges)
    return list(_merge(rounded))


def _symmetric_difference(a: list[Range], b: list[Range]) -> list[Range]:
    """The ranges that are in one list only. Where an odd number of edges lies before, exactly one holds."""
    edges = sorted([edge for pair in a for edge in pair] + [edge for pair in b for edge in pair])
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [(start, end) for start, end in pairs if start < end]


def _unwritten(content: Content) -> list[Range]:
    return unwritten_ranges(content.fd, content.size) if _is_plain(content) else []
