"""What a sandbox shows where: overlays of the volumes, and in between all else that is mounted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import NamedTuple

from snapbreaker.backend import Volume
from snapbreaker.files.policy import PathClass, Policy
from snapbreaker.linux.mountinfo import Mount
from snapbreaker.paths import is_below
from snapbreaker.report.model import absolute

RUN = "/run"


class Kind(Enum):
    OVERLAY = auto()
    THROUGH = auto()  # the machine's own directory, or file: what is written there is written
    PRIVATE = auto()  # a copy that nobody else sees, gone at the end


class Place(NamedTuple):
    path: str
    kind: Kind
    number: int = -1  # of the volume


def places(
    volumes: Sequence[tuple[Volume, Policy]], mounts: Iterable[Mount], ours: Sequence[str] = ()
) -> list[Place]:
    """The places in the order in which they are to be mounted, an outer one before those inside it.

    Without an overlay of ``/`` only what lies inside an overlay has to be mounted again: the rest is there.
    ``ours`` are directories of snapbreaker's own: what is written there by the command goes with the sandbox.
    """
    wanted = {RUN: Place(RUN, Kind.PRIVATE)}
    for mount in mounts:
        if mount.mountpoint not in ("/", RUN):
            wanted.setdefault(mount.mountpoint, Place(mount.mountpoint, Kind.THROUGH))
    for volume, policy in volumes:
        for path in _kept(volume, policy):
            wanted.setdefault(path, Place(path, Kind.THROUGH))
    for path in ours:
        wanted.pop(path, None)
    for volume, _ in volumes:
        wanted[volume.root] = Place(volume.root, Kind.OVERLAY, volume.number)
    placed: list[Place] = []
    for place in sorted(wanted.values(), key=lambda place: place.path.rstrip("/").split("/")):
        outer = _around(place.path, placed)
        if place.kind is not Kind.THROUGH or (outer is not None and outer.kind is Kind.OVERLAY):
            placed.append(place)
    return placed


def _kept(volume: Volume, policy: Policy) -> list[str]:
    """What of the volume is kept, and is there."""
    found = [absolute(volume.root, path) for path, path_class in policy.classes if path_class is PathClass.KEEP]
    return [path for path in found if path != volume.root and os.path.lexists(path) and not os.path.islink(path)]


def _around(path: str, placed: Sequence[Place]) -> Place | None:
    """The innermost of the places that ``path`` lies in."""
    return max(
        (place for place in placed if is_below(path, place.path)), key=lambda place: len(place.path), default=None
    )
