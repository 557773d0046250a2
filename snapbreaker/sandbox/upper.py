"""What a command wrote in its sandbox: one directory for each volume, held open."""

from __future__ import annotations

from collections.abc import Mapping

from snapbreaker.checkpoint.record import VolumeRecord
from snapbreaker.dataclass import dataclass
from snapbreaker.sandbox.removals import Removals

APPLIED = 1  # the restore by which a command's changes come to a volume: the first one in its vault


@dataclass(frozen=True, slots=True)
class Uppers:
    """``fds`` are directory descriptors by the number of the volume. ``removals`` are those by others since the
    sandbox began; None: nobody has watched.
    """

    fds: Mapping[int, int]
    removals: Removals | None = None

    def has(self, volume: VolumeRecord) -> bool:
        return volume.stored.volume.number in self.fds

    @property
    def any_fd(self) -> int:
        """All of them lie on one filesystem."""
        return next(iter(self.fds.values()))
