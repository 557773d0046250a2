"""umount(2)."""

from __future__ import annotations

import os

from snapbreaker.linux.libc import check, libc

MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8  # umount2(2)


def unmount(path: str) -> None:
    """Detach the mount at ``path`` at once, even when it is busy. Raises OSError."""
    check(libc.umount2(os.fsencode(path), MNT_DETACH | UMOUNT_NOFOLLOW), "umount2", path)
