"""How large a classic snapshot is made: as asked for, or by policy."""

from __future__ import annotations

import os

from snapbreaker.backend import Volume
from snapbreaker.errors import CheckpointError
from snapbreaker.report.wording import size_text
from snapbreaker_backends.lvm import reasons
from snapbreaker_backends.lvm.logical_volume import LogicalVolume

LEAST = 64 << 20  # bytes that a classic snapshot takes up at least
MOST_OF_ORIGIN = 1.1  # a classic snapshot larger than its origin and its own metadata is of no use
SHARE = 5  # by default it takes up to a fifth of what the filesystem holds, and at least a GiB where that is free


def extents(volume: Volume, origin: LogicalVolume, wanted: int) -> int:
    """How many a classic snapshot gets: as asked for, or by policy. Raises CheckpointError when there are none."""
    if origin.is_thin:
        return 0
    octets = min(wanted or max(1 << 30, _held(volume) // SHARE), int(origin.size * MOST_OF_ORIGIN))
    if wanted and octets > origin.free:
        raise CheckpointError(
            f"--snapshot-size {size_text(wanted)}: the group {origin.group} has {size_text(origin.free)} free",
            f"vgs {origin.group}; ask for less",
        )
    number = min(-(-octets // origin.extent), origin.free_extents)
    if number * origin.extent < least(origin):
        why = reasons.no_room(origin)
        raise CheckpointError(why.text, why.remedy)
    return number


def least(origin: LogicalVolume) -> int:
    return min(LEAST, int(origin.size * MOST_OF_ORIGIN))


def _held(volume: Volume) -> int:
    """Bytes that the filesystem holds."""
    facts = os.statvfs(volume.mountpoint)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize
