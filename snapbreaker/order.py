"""In which order volumes go back. The power may go between any two, and what boots then has to fit together.

A kernel that has lost its modules mounts nothing further. So modules that are missing come back first, then what
boots with them (/boot, the EFI system partition), and what the run has added is removed last, with the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

from snapbreaker import layout
from snapbreaker.checkpoint.record import VolumeRecord
from snapbreaker.paths import is_below


def in_order(volumes: Sequence[VolumeRecord]) -> list[VolumeRecord]:
    """Those that boot first, an outer before an inner one; the others as they are."""
    return sorted(volumes, key=lambda volume: not boots(volume))


def boots(volume: VolumeRecord) -> bool:
    return any(is_below(volume.stored.volume.root, place) for place in layout.BOOT)


def modules_apart(volumes: Sequence[VolumeRecord]) -> list[VolumeRecord]:
    """The volumes that may hold modules of a kernel that lies on another one."""
    if not any(boots(volume) for volume in volumes):
        return []
    return [one for one in volumes if any(is_below(place, one.stored.volume.root) for place in layout.MODULES)]
