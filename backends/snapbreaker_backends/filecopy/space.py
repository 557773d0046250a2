"""How much room a copy takes, and how much there is."""

from __future__ import annotations

import os

from snapbreaker.backend import Creation, Volume
from snapbreaker.writers import Inode
from snapbreaker_backends.filecopy.recorder import live_tree

_LARGE = 1 << 20  # of files larger than this it is asked how much of them is holes


def free(volume: Volume) -> int:
    """Bytes that can be used on the volume, the reserve of the superuser left alone."""
    facts = os.statvfs(volume.mountpoint)
    return facts.f_bavail * facts.f_frsize


def allocated(volume: Volume, creation: Creation) -> int:
    """Bytes that the files in scope take on the disk, each group of hard links once, by one walk."""
    total, seen = 0, set[Inode]()
    with live_tree(volume, creation) as tree:
        for entry in tree.walk():
            if not entry.is_file:
                continue
            if entry.nlink > 1:
                inode = Inode(entry.dev, entry.ino)
                if inode in seen:
                    continue
                seen.add(inode)
            total += entry.size
            if entry.size > _LARGE:
                parent, name = tree.open_parent(entry.path)
                blocks = os.stat(name, dir_fd=parent, follow_symlinks=False).st_blocks
                total += min(blocks * 512, entry.size) - entry.size
    return total


def shown(octets: int) -> str:
    """For a person: ``1.5 GiB``."""
    size, unit = float(octets), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{octets} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
