"""Open directories, kept for the paths that come next in a walk's order."""

from __future__ import annotations

import os
from collections.abc import Callable


class Parents:
    """The descriptors of the last directories asked for; the longest unused is closed first."""

    def __init__(self, opener: Callable[[bytes], int], limit: int = 32) -> None:
        self._opener, self._limit = opener, limit
        self._open: dict[bytes, int] = {}  # in the order of use

    def get(self, directory: bytes) -> int:
        """A descriptor that stays open until ``limit`` other directories were asked for."""
        fd = self._open.pop(directory, -1)
        if fd < 0:
            fd = self._opener(directory)
        self._open[directory] = fd
        if len(self._open) > self._limit:
            os.close(self._open.pop(next(iter(self._open))))
        return fd

    def forget(self) -> None:
        """Close all: after directories were renamed or replaced a path may mean another one."""
        while self._open:
            os.close(self._open.popitem()[1])
