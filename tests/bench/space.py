"""How much room something takes on a filesystem."""

from __future__ import annotations

import os
from pathlib import Path

from tests.bench.measure import settle


def in_use(mountpoint: Path) -> int:
    """Bytes of a filesystem that are not free, when all that was written is on disk."""
    settle(mountpoint)
    facts = os.statvfs(mountpoint)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize


def allocated(directory: Path) -> int:
    """Bytes of all files and directories below ``directory``, which need not exist."""
    return sum(
        os.lstat(os.path.join(where, name)).st_blocks * 512
        for where, directories, names in os.walk(directory)
        for name in (*directories, *names)
    )
