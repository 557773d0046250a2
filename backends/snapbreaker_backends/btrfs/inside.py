"""Subvolumes that lie in the one that is replaced at boot, and of which the checkpoint has no snapshot."""

from __future__ import annotations

import os
from collections.abc import Iterator

from snapbreaker.backend import Reason, Stored
from snapbreaker.carried import DIRECTORY, kept_of, opened
from snapbreaker.linux.fstab import read_fstab
from snapbreaker.linux.mountinfo import read_mounts
from snapbreaker.linux.openat import open_beneath
from snapbreaker.paths import below, is_below, relative
from snapbreaker_backends.btrfs import place
from snapbreaker_backends.btrfs.enumeration import nested_subvolumes
from snapbreaker_backends.btrfs.plan import top_level


def refusals(stored: Stored) -> Iterator[Reason]:
    """Why they keep it from being replaced. One that came since, and is seen, goes like all else. Raises OSError.

    No checkpoint has one that something is mounted over, and what is kept comes over only once all is mounted.
    """
    root = stored.volume.root
    recorded = {one["path"] for one in stored.data["snapshots"]}
    kept = kept_of(stored.policy)
    named = _named(os.fsdecode(place.place_of(stored.volume).path))
    points = {*stored.volume.skip, *(one.mountpoint for one in read_mounts() if one.mountpoint != root)}
    told: set[str] = set()
    for path in _nested(stored):
        if path in recorded or any(is_below(path, one) for one in told):
            continue
        where = below(root, path)
        if any(is_below(path, one) for one in kept):
            for inner, point in named.items():
                if is_below(path, inner) or is_below(inner, path):
                    yield Reason(
                        f"{place.FSTAB} mounts the kept subvolume {path} in it at {point}, before it comes over",
                        "move it out of the one that is replaced, to the top level",
                    )
        elif point := next((one for one in sorted(points) if is_below(one, root) and is_below(where, one)), ""):
            told.add(path)
            yield Reason(
                f"{point} is mounted over the subvolume {path} in it, which would go with the rest",
                "move it out, to the top level of the filesystem; or a checkpoint with --keep",
            )


def _nested(stored: Stored) -> list[str]:
    """All of them, whatever is mounted over them."""
    at = place.place_of(stored.volume).path
    with top_level(stored.volume) as top, opened(open_beneath(top, at, DIRECTORY)) as fd:
        found = nested_subvolumes(fd, lambda path: b".snapbreaker" in path.split(b"/"))
        return [os.fsdecode(one.path) for one in found]


def _named(outer: str) -> dict[str, str]:
    """The subvolumes in ``outer`` that fstab(5) mounts by name: paths in it, and where."""
    options = [(option, line.mountpoint) for line in read_fstab(place.FSTAB) for option in line.options]
    names = [(option[7:].strip("/"), point) for option, point in options if option.startswith("subvol=")]
    return {relative(name, outer): point for name, point in names if name != outer and is_below(name, outer)}
