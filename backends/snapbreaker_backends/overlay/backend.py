"""The overlay backend: when it can serve, and the two trees to go back to."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from snapbreaker.backend import Availability, Backend, Capability, Creation, Reason, Stored, Volume
from snapbreaker.files.changetree import ChangeTree
from snapbreaker.files.displaced import read_tops
from snapbreaker.files.live import LiveTree
from snapbreaker.files.proof import Proof
from snapbreaker.files.stage import attempts, put_in_place
from snapbreaker.files.tree import Tree
from snapbreaker.linux.writeback import sync_filesystem
from snapbreaker.paths import relative
from snapbreaker.sandbox.probe import reason_against
from snapbreaker.sandbox.upper import APPLIED
from snapbreaker_backends.overlay.trees import Nothing, Reversal, Untouched

_NOTE = "for `run --backend overlay`; chosen unasked only for commands that are known to change nothing but files"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class OverlayBackend(Backend):
    name = "overlay"
    rank = 40
    capabilities = Capability.INSTANT | Capability.SANDBOX

    def availability(self, volume: Volume) -> Availability:
        reasons = tuple(_refusals(volume))
        return Availability(reasons, () if reasons else (_NOTE,))

    def create(self, volume: Volume, creation: Creation) -> dict[str, Any]:
        """Only when it began: by that it is known later what others have changed meanwhile."""
        started = time.monotonic()
        proof = Proof.take()  # before the sync: whatever is written through a mapping later gets a later ctime
        sync_filesystem(volume.root)
        seconds = time.monotonic() - started
        return {"bytes": 0, "frozen": 0.0, "seconds": seconds, "proof": proof.as_dict()}

    def open(self, stored: Stored) -> Tree:
        """The volume itself: before the command's changes are applied nothing can have been changed by it."""
        return Untouched(_live(stored))

    def undo(self, stored: Stored) -> ChangeTree:
        """What applying has displaced, however far it came."""
        if not (APPLIED in attempts(stored.vault) and put_in_place(stored.vault, APPLIED)):
            return Nothing(read_tops(stored.vault))
        with _live(stored) as live:
            return Reversal.of(stored.vault, APPLIED, live)

    def discard(self, volume: Volume, vault: str, record: str) -> None:
        """There is nothing: what was displaced the core removes."""


def _live(stored: Stored) -> LiveTree:
    root = stored.volume.root
    skip = [os.fsencode(relative(point, root)) for point in stored.volume.skip]
    return LiveTree(root, stored.policy, skip=skip)


def _refusals(volume: Volume) -> Iterator[Reason]:
    if os.statvfs(volume.root).f_flag & os.ST_RDONLY:
        yield Reason(f"{volume.root} is mounted read-only", f"mount -o remount,rw {volume.mountpoint}")
    if reason := reason_against(volume):
        yield reason
