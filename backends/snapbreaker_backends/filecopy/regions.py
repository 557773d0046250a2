"""What of a volume has to be recorded while a writer is held still: more than the files that it has open.

A database is several files: those open now, and others beside them that it opens now and then (journals, logs,
lists of what belongs together). They are taken in one instant: each directory with an open file, with all below
it, and as far up as the directories belong to the same service account.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from snapbreaker.files.entry import Entry
from snapbreaker.files.live import LiveTree


def regions_of(tree: LiveTree, paths: Iterable[bytes]) -> list[bytes]:
    """Directories, none below another. ``b""``, the volume's root, stands for the files directly in it only."""
    found = {_region(tree, path) for path in paths}
    return sorted(region for region in found if not any(_is_inside(region, other) for other in found))


def in_region(entry: Entry, regions: Iterable[bytes]) -> bool:
    """Whether ``entry`` is recorded with one of the regions."""
    return any(_covers(region, entry) for region in regions)


def entries_of(tree: LiveTree, region: bytes) -> list[Entry]:
    """Everything in the region now, in the order of a walk."""
    if region:
        return list(tree.walk(region))
    names = sorted(os.fsencode(name) for name in os.listdir(tree.root_fd))
    found = [tree.lookup(path) for path in (b"", *names)]
    return [entry for entry in found if entry is not None and in_region(entry, (region,))]


def _region(tree: LiveTree, path: bytes) -> bytes:
    region = path.rpartition(b"/")[0]
    owner = _owner(tree, region)
    while region and owner:
        above = region.rpartition(b"/")[0]
        if not above or _owner(tree, above) != owner:
            break
        region = above
    return region


def _owner(tree: LiveTree, path: bytes) -> int:
    entry = tree.lookup(path)
    return entry.uid if entry else 0


def _covers(region: bytes, entry: Entry) -> bool:
    if not region:
        return b"/" not in entry.path and (not entry.is_dir or not entry.path)
    return entry.path == region or entry.path.startswith(region + b"/")


def _is_inside(region: bytes, other: bytes) -> bool:
    return region != other and bool(other) and region.startswith(other + b"/")
