"""Whether a checkpoint covers all of a dataset, so that nothing else is lost where that goes back as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from snapbreaker import carried, commands
from snapbreaker.backend import Stored
from snapbreaker.carried import opened
from snapbreaker.files.policy import PathClass
from snapbreaker.files.room import RESERVE
from snapbreaker.linux.mountinfo import Mount, read_mounts
from snapbreaker.linux.openat import open_beneath
from snapbreaker.paths import relative
from snapbreaker_backends.zfs import datasets, names, plan

_VAULTS = ".snapbreaker"
_PATH = os.O_PATH | os.O_NOFOLLOW


def is_whole(stored: Stored) -> bool:
    """Whether the dataset is the volume, and may be made read-only, and has nothing to do with the root."""
    volume = stored.volume
    mount = datasets.mount_of(volume)
    facts = os.statvfs(mount.mountpoint)
    return (
        volume.root == volume.mountpoint
        and stored.policy.of(b"") is PathClass.RESTORE
        and mount.root == "/"
        and not facts.f_flag & os.ST_RDONLY
        and names.names_of(volume, stored.data["name"]) is None
        and os.stat(stored.record).st_dev != os.stat(mount.mountpoint).st_dev
        and commands.installed("zfs")
        and commands.installed("zpool")
    )


def keeps_only_vaults(stored: Stored, mount: Mount, snapshot: str) -> bool:
    """Whether nothing in it is kept but vaults, which are as they were, and what is mounted on was there."""
    kept = [path for path in carried.kept_of(stored.policy) if path != _VAULTS]
    reserve = relative(f"{stored.vault}/{RESERVE}", mount.mountpoint)
    with plan.top_of(snapshot) as old, opened(os.open(mount.mountpoint, carried.DIRECTORY)) as new:
        if any(carried.exists(new, os.fsencode(path)) for path in kept):
            return False
        if set(_vaults(old)) != {one for one in _vaults(new) if one[0] != reserve}:
            return False
        points = [other.mountpoint for other in read_mounts() if other.parent == mount.id]
        return all(_is_the_same(old, mount, relative(point, mount.mountpoint)) for point in points)


def _vaults(top: int) -> Iterator[tuple[str, int, int, int]]:
    with suppress(FileNotFoundError):
        for directory, _, files, fd in os.fwalk(_VAULTS, dir_fd=top):
            yield directory, 0, 0, 0
            for name in files:
                facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
                yield f"{directory}/{name}", facts.st_ino, facts.st_size, facts.st_mtime_ns


def _is_the_same(old: int, mount: Mount, point: str) -> bool:
    """A directory that is mounted on, and all above it: they are found beneath by a mount of our own.

    They stay in the kernel's cache of names, by which they would be found afterwards wherever they lie now.
    """
    if not carried.is_directory(old, os.fsencode(point)):
        return False
    with plan.top_of(mount.source, writable=True) as new:
        while point:
            numbers = []
            for top in (old, new):
                with opened(open_beneath(top, os.fsencode(point), _PATH)) as fd:
                    numbers.append(os.fstat(fd).st_ino)
            if numbers[0] != numbers[1]:
                return False
            point = os.path.dirname(point)
    return True
