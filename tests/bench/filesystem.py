"""The filesystems that are measured on, and how much room something takes there."""

from __future__ import annotations

import os
from pathlib import Path

from tests.bench.measure import settle
from tests.lab import loopfs

SIZE = 32 * loopfs.GIB  # of the sparse image; ext4 makes an inode for each 16 KiB of it
# ext4 would else write its inode tables while we measure (mount(8), ext4(5)).
OPTIONS = {"ext4": "noatime,noinit_itable"}


def make(fstype: str, scratch: Path) -> loopfs.LoopFilesystem:
    return loopfs.make(fstype, scratch, fstype, SIZE, OPTIONS.get(fstype, "noatime"))


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
