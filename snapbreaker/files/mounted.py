"""The files of a snapshot that has a filesystem of its own, by a mount that nobody else sees."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack

from snapbreaker.files.live import LiveTree
from snapbreaker.files.policy import Policy


class MountedTree(LiveTree):
    """``mount`` holds the mount, whose directory ``top`` is the tree's root; it ends with the tree."""

    def __init__(self, mount: ExitStack, top: int, policy: Policy, skip: Collection[bytes]) -> None:
        self._mount = mount
        super().__init__(top, policy, skip=skip)

    def close(self) -> None:
        super().close()
        self._mount.close()
