"""What a command wrote in its sandbox: one directory for each volume, held open."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from snapbreaker.backend import Volume
from snapbreaker.checkpoint.record import VolumeRecord
from snapbreaker.dataclass import dataclass
from snapbreaker.paths import is_below, relative


@dataclass(frozen=True, slots=True)
class Uppers:
    """``fds`` are directory descriptors by the number of the volume, ``made`` the absolute paths of files in them
    that are ours.
    """

    fds: Mapping[int, int]
    made: Sequence[str] = ()

    def has(self, volume: VolumeRecord) -> bool:
        return volume.stored.volume.number in self.fds

    def made_in(self, volume: Volume) -> list[bytes]:
        """Those of ``made`` that may lie in the volume, relative to its root."""
        return [os.fsencode(relative(path, volume.root)) for path in self.made if is_below(path, volume.root)]

    @property
    def any_fd(self) -> int:
        """All of them lie on one filesystem."""
        return next(iter(self.fds.values()))
