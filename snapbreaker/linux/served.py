"""Where a path may lead to a server or a program that does not answer: stat(2) waits there without an end."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from snapbreaker.dataclass import dataclass
from snapbreaker.linux.filesystems import Kind, kind
from snapbreaker.linux.mountinfo import Mount, read_mounts

_FRESH = 1.0  # s that a look at a mount namespace is good for
_seen: dict[int, tuple[float, Served]] = {}


@dataclass(frozen=True, slots=True)
class Served:
    """The mount points of one namespace, the longest first, with whether each is served; none where no one is."""

    mounts: tuple[tuple[bytes, bool], ...] = ()

    @classmethod
    def of(cls, mounts: Sequence[Mount]) -> Served:
        found = {
            os.fsencode(mount.mountpoint).rstrip(b"/") + b"/": kind(mount.fstype) in (Kind.NETWORK, Kind.SERVED)
            for mount in mounts
        }
        if not any(found.values()):
            return cls()
        return cls(tuple(sorted(found.items(), key=lambda each: -len(each[0]))))

    def holds(self, path: bytes) -> bool:
        """Whether ``path``, absolute, lies on a filesystem that is served. No system call."""
        return next((served for point, served in self.mounts if path.startswith(point)), False)


def served_to(pid: int) -> Served:
    """As the process sees it, of the last second; nothing when it is gone."""
    try:
        namespace = os.stat(f"/proc/{pid}/ns/mnt").st_ino
        at, found = _seen.get(namespace, (0.0, Served()))
        if not at or time.monotonic() - at > _FRESH:
            found = Served.of(read_mounts(f"/proc/{pid}/mountinfo"))
            _seen[namespace] = time.monotonic(), found
    except OSError:
        return Served()
    return found
