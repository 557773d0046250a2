"""A tree recorded the plain way, for tests of what reads and compares it: a manifest and a pack."""

from __future__ import annotations

import os
from pathlib import Path

from snapbreaker.files.live import LiveTree
from snapbreaker.files.manifest import ManifestTree
from snapbreaker.files.manifest_writer import ManifestWriter
from snapbreaker.files.proof import Proof
from snapbreaker.files.tree import Extent


def record(tree: LiveTree, directory: Path) -> Proof:
    """Write ``manifest`` and ``pack`` into ``directory``; the proof of it."""
    os.sync()
    proof = Proof.take()
    with ManifestWriter(str(directory / "manifest")) as writer, open(directory / "pack", "wb") as pack:
        for entry in tree.walk():
            extents = None
            if entry.is_file:
                content = tree.content(entry)
                extents = tuple(_store(content.fd, extent, pack.fileno()) for extent in content.extents)
                content.close()
            writer.add(entry, tree.details(entry), extents)
    return proof


class Recorded(ManifestTree):
    """Closes its pack too."""

    def __init__(self, directory: Path) -> None:
        self.pack_fd = os.open(directory / "pack", os.O_RDONLY)
        super().__init__(str(directory / "manifest"), self.pack_fd)

    def close(self) -> None:
        if self.pack_fd >= 0:
            os.close(self.pack_fd)
            self.pack_fd = -1
        super().close()


def recorded(directory: Path) -> ManifestTree:
    return Recorded(directory)


def _store(fd: int, extent: Extent, pack: int) -> Extent:
    at = os.lseek(pack, 0, os.SEEK_END)
    os.write(pack, os.pread(fd, extent.length, extent.source))
    return Extent(extent.offset, at, extent.length)
