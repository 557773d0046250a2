"""What the kernel still has in memory of a mounted dataset when that is rolled back: pages and names."""

from __future__ import annotations

import os
from collections.abc import Sequence

from snapbreaker.carried import DIRECTORY, opened
from snapbreaker.errors import RestoreError
from snapbreaker.files.entry import Change
from snapbreaker.linux.mountinfo import Mount
from snapbreaker.linux.openat import open_beneath

_PATH = os.O_PATH | os.O_NOFOLLOW
_QUIET = os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_NONBLOCK


def forget_pages(mount: Mount, changes: Sequence[Change]) -> None:
    """What was mapped once is read out of memory, also after the rollback, which leaves it there (zfs_rezget)."""
    with opened(os.open(mount.mountpoint, DIRECTORY)) as top:
        for change in changes:
            if change.new is not None and change.new.is_file:
                with opened(open_beneath(top, change.path, _QUIET)) as fd:
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def prove(mount: Mount, changes: Sequence[Change]) -> None:
    """Raise RestoreError where the kernel finds something by its old name: a directory that was moved, and that
    somebody whom we do not see has open (zpl_revalidate). What is on disk is right.
    """
    with opened(os.open(mount.mountpoint, DIRECTORY)) as top:
        for change in changes:
            # A snapshot's top directory has a number of its own (zfs_getattr_fast).
            if change.old is not None and change.path:
                with opened(open_beneath(top, change.path, _PATH)) as fd:
                    found = os.fstat(fd).st_ino
                if found != change.old.ino:
                    raise RestoreError(
                        f"{mount.source} went back, but {mount.mountpoint} still shows some of what was there",
                        f"nothing may be written to it until it was unmounted and mounted again: zfs unmount "
                        f"{mount.source}; zfs mount {mount.source}; then `snapbreaker verify`",
                    )
