"""The last walk over what was linked: whether anything has changed since the first one.

Nothing has, nearly always. Then a block of the first walk's manifest goes into the final one as it is, not even
unpacked again.
"""

from __future__ import annotations

import bisect
import heapq
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from snapbreaker.files.bounds import Bounds
from snapbreaker.files.entry import Entry, sort_key
from snapbreaker.files.live import LiveTree
from snapbreaker.files.manifest import ManifestTree
from snapbreaker.files.manifest_format import RECORDS_PER_BLOCK, Records
from snapbreaker.files.manifest_writer import ManifestWriter
from snapbreaker_backends.filecopy.copies import Copies, PackedBlock, Recorded
from snapbreaker_backends.filecopy.regions import in_region


class Look(NamedTuple):
    """What one process found: paths that have to be recorded anew, and mount points."""

    changed: list[Entry]
    mounts: set[bytes]


class Again:
    """``packed``: entry and extras of what was copied in the first walk. ``regions`` were recorded when their
    writers were held still, and ``pictured`` are the paths of that, sorted.
    """

    def __init__(
        self,
        tree: LiveTree,
        packed: Mapping[bytes, tuple[Entry, bytes]],
        copies: Copies,
        regions: Collection[bytes],
        pictured: list[bytes],
    ) -> None:
        self._tree, self._packed, self._copies, self._regions = tree, packed, copies, regions
        self._cuts = [sort_key(path) for path in pictured]

    def look(self, bounds: Bounds, first: str, again: str, tell: Callable[[int], None]) -> Look:
        """Compare a part with its manifest ``first``, and write ``again`` of what is as it was."""
        changed: list[Entry] = []
        live = self._tree.walk_part(bounds)
        pending: list[Entry] = []
        count = 0
        with ManifestTree(first) as tree, ManifestWriter(again) as writer:
            stops = [sort_key(block.first) for block in tree.index[1:]]
            for number, (block, raw) in enumerate(tree.blocks()):
                recorded = Records(zlib.decompress(raw))
                entries = recorded.entries
                found = pending + list(islice(live, max(0, len(entries) - len(pending))))
                pending = []
                if found == entries and not self._is_pictured(entries):
                    writer.add_block(block, raw)
                else:
                    stop = stops[number] if number < len(stops) else None
                    found, pending = _until(stop, found, live)
                    known = dict(zip(entries, recorded.extras(), strict=True))
                    self._compare(known, found, writer, changed)
                count += len(found)
                tell(count)
            while rest := pending or list(islice(live, RECORDS_PER_BLOCK)):
                pending = []
                self._compare({}, rest, writer, changed)
        return Look(changed, self._tree.mounts)

    def _is_pictured(self, entries: list[Entry]) -> bool:
        """Whether any path recorded in the regions lies among them."""
        after = bisect.bisect_right(self._cuts, sort_key(entries[-1].path))
        return after > bisect.bisect_left(self._cuts, sort_key(entries[0].path))

    def _compare(
        self, known: Mapping[Entry, bytes], found: list[Entry], writer: ManifestWriter, changed: list[Entry]
    ) -> None:
        place = -1
        for entry in found:
            if self._regions and in_region(entry, self._regions):
                continue
            now = bisect.bisect_left(self._cuts, sort_key(entry.path))
            extras = known.get(entry)
            if extras is None and (copied := self._packed.get(entry.path)) and copied[0] == entry:
                extras = copied[1] if self._copies.find(entry) is not None else None
            if extras is None or now != place:
                writer.cut()  # something else comes in between
            place = now
            if extras is None:
                changed.append(entry)
            else:
                writer.add_packed(entry, extras)

    def merged(
        self, again: str, changed: list[Entry], record: Callable[[Entry], Recorded | None]
    ) -> Iterator[Recorded | PackedBlock]:
        """What ``look`` wrote, and what it left to be recorded anew, in the order of a walk."""
        with ManifestTree(again) as tree:
            blocks: Iterator[Recorded | PackedBlock] = (PackedBlock(block, raw) for block, raw in tree.blocks())
            anew = (recorded for entry in changed if (recorded := record(entry)) is not None)
            yield from heapq.merge(blocks, anew, key=_key)


def _key(each: Recorded | PackedBlock) -> bytes:
    return sort_key(each.path)


def _until(stop: bytes | None, found: list[Entry], live: Iterator[Entry]) -> tuple[list[Entry], list[Entry]]:
    """The entries before ``stop``, and those that were read beyond it."""
    if stop is None:
        return found, []
    while not found or sort_key(found[-1].path) < stop:
        more = next(live, None)
        if more is None:
            return found, []
        found.append(more)
    keys = [sort_key(entry.path) for entry in found]
    at = bisect.bisect_left(keys, stop)
    return found[:at], found[at:]
