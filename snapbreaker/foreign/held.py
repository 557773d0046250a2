"""Files that are still open for writing, or mapped so, when the watch ends: no event has told of them."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress

from snapbreaker.linux.filesystems import filesystem_type
from snapbreaker.linux.process import pids
from snapbreaker.writers import OpenFile, writable_files


class Devices:
    """Which files are of the watched filesystems, where ``mountpoints`` are mounted.

    The files of a btrfs have another st_dev in each subvolume, also in ones made since. The lower half of its
    f_fsid is the same in all: only the upper one is mixed with the subvolume's id (btrfs_statfs).
    """

    def __init__(self, mountpoints: Collection[str]) -> None:
        self._known = {os.stat(path).st_dev: True for path in mountpoints}
        self._btrfs = {_lower_half(path) for path in mountpoints if filesystem_type(path) == "btrfs"}

    def have(self, file: OpenFile) -> bool:
        device = file.inode.device
        if device not in self._known:
            self._known[device] = bool(self._btrfs) and os.major(device) == 0 and self._is_on_btrfs(file.link)
        return self._known[device]

    def _is_on_btrfs(self, path: bytes) -> bool:
        with suppress(OSError):
            return filesystem_type(path) == "btrfs" and _lower_half(path) in self._btrfs
        return False


def held_files(devices: Devices, deadline: float) -> Iterator[tuple[int, OpenFile]]:
    """Each such file that has a name, with its process. Raises TimeoutError at ``deadline`` (monotonic)."""
    for pid in sorted(pids()):
        if time.monotonic() >= deadline:
            raise TimeoutError
        for file in writable_files(pid):
            if file.links and devices.have(file):
                yield pid, file


def _lower_half(path: str | bytes) -> int:
    return os.statvfs(path).f_fsid & 0xFFFFFFFF
