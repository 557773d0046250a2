"""What a restore knew of linked files before it touched them, for the next attempt, should it be cut off.

A restore renames and links files, which moves their ctime to a time when no guard was watching. The mtime that a
file had when it was still certain tells from then on that nobody else has written to it.
"""

from __future__ import annotations

import os
from contextlib import suppress

VOUCHED = "vouched"  # in the vault

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class Vouched:
    """Inodes with their mtimes. Not made durable: after a power cut it is the boot that tells."""

    def __init__(self, vault: str) -> None:
        self._path = f"{vault}/{VOUCHED}"
        self._fd = -1
        self.known: dict[int, int] = {}
        with suppress(FileNotFoundError), open(self._path, "rb") as file:
            for line in file.read().split(b"\n"):
                with suppress(ValueError):  # an empty one, or one that was cut off
                    inode, mtime_ns, _end = line.split(b" ")
                    self.known[int(inode)] = int(mtime_ns)

    def knows(self, inode: int, mtime_ns: int) -> bool:
        return self.known.get(inode) == mtime_ns

    def add(self, inode: int, mtime_ns: int) -> None:
        """Where it cannot be noted (no space) the next attempt knows less."""
        if self.knows(inode, mtime_ns):
            return
        self.known[inode] = mtime_ns
        with suppress(OSError):
            if self._fd < 0:
                self._fd = os.open(self._path, _FLAGS, 0o600)
            os.write(self._fd, b"\n%d %d .\n" % (inode, mtime_ns))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
