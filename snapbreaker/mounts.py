"""Mounts that appear or vanish inside the scope during a run."""

from __future__ import annotations

import os
from collections.abc import Sequence

from snapbreaker import layout
from snapbreaker.backend import Volume
from snapbreaker.dataclass import dataclass
from snapbreaker.files.policy import Policy
from snapbreaker.linux.mountinfo import read_mounts
from snapbreaker.linux.unmount import unmount
from snapbreaker.paths import is_below, relative

Covered = Sequence[tuple[Volume, Policy]]
"""The volumes of a checkpoint, each with its policy."""


def below(volumes: Covered) -> list[str]:
    """Mount points in the volumes, in the order in which they were mounted.

    Not those in what is kept, nor of the kernel's own interfaces: they come and go with logins and drivers.
    """
    mounts = [mount for mount in read_mounts() if not mount.shows_snapshot]
    return [mount.mountpoint for mount in mounts if _counts(mount.mountpoint, volumes)]


@dataclass(frozen=True, slots=True)
class Undone:
    """``unmounted`` is gone; ``left`` was mounted since, perhaps by others. ``missing`` was mounted and is not; so
    was what is ``taken_by_others``, perhaps.
    """

    unmounted: list[str]
    left: list[str]
    missing: list[str]
    taken_by_others: list[str]


def undo(volumes: Covered, known: Sequence[str]) -> Undone:
    """Unmount what was mounted in ``volumes`` since ``known`` was taken, where that is probably the run's.

    Nobody tells who mounted something. Outside of the directories that hold the system (a stick at /mnt), and
    where services mount by themselves, it stays. Raises OSError where a mount cannot be detached. A mount that is
    missing now is only told: what it showed is not in the checkpoint.
    """
    extra, missing = since(volumes, known)
    left = [point for point in extra if _may_be_others(point, volumes)]
    gone = [point for point in reversed(extra) if point not in left]
    for point in gone:
        unmount(point)
    taken = [point for point in missing if _may_be_others(point, volumes)]
    return Undone(gone, left, [point for point in missing if point not in taken], taken)


def since(volumes: Covered, known: Sequence[str]) -> tuple[list[str], list[str]]:
    """The mount points in ``volumes`` that came since ``known`` was taken, and those that are gone."""
    now = below(volumes)
    extra = list(now)
    for point in known:
        if point in extra:
            extra.remove(point)
    return extra, [point for point in known if point not in now]


def _counts(point: str, volumes: Covered) -> bool:
    holding = [(volume, policy) for volume, policy in volumes if is_below(point, volume.root)]
    if not holding:
        return False
    volume, policy = max(holding, key=lambda one: len(one[0].root))
    if any(is_below(point, api) and is_below(api, volume.root) for api in layout.INTERFACES):
        return False
    return not policy.keeps(os.fsencode(relative(point, volume.root)))


def _may_be_others(point: str, volumes: Covered) -> bool:
    if not any(volume.root == "/" for volume, _ in volumes):
        return False
    held = any(is_below(point, directory) for directory in layout.SYSTEM)
    return not held or any(is_below(point, directory) for directory in layout.MANAGED)
