"""Files that containers write to and the guard does not hear of.

Before Linux 6.8 an overlay opens the file below it with FMODE_NONOTIFY (OVL_OPEN_FLAGS in fs/overlayfs/file.c):
the filesystem that holds its upper directory announces neither that open nor the writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from snapbreaker.backend import Volume
from snapbreaker.linux.mountinfo import Mount
from snapbreaker.paths import is_below, relative

_HEARD_SINCE = (6, 8)
# Where container engines keep layers; any of them may become an upper directory when a container is started.
_STORES = ("/var/lib/docker/overlay2", "/var/lib/containers/storage/overlay", "/var/lib/containerd")


def upper_directories(volume: Volume, mounts: Iterable[Mount], release: str = "") -> list[bytes]:
    """Paths on the volume that mounted overlays write to; none where the kernel tells of those writes."""
    overlays = [mount for mount in mounts if mount.fstype == "overlay"]
    options = [option for mount in overlays for option in mount.super_options.split(",")]
    return _inside(volume, [one.partition("=")[2] for one in options if one.startswith("upperdir=")], release)


def container_stores(volume: Volume, release: str = "") -> list[bytes]:
    """Paths on the volume below which an overlay may come to write during the run; likewise."""
    return _inside(volume, _STORES, release)


def _inside(volume: Volume, paths: Iterable[str], release: str) -> list[bytes]:
    if _version(release or os.uname().release) >= _HEARD_SINCE:
        return []
    return [os.fsencode(relative(path, volume.root)) for path in paths if path and is_below(path, volume.root)]


def _version(release: str) -> tuple[int, int]:
    major, minor = release.split("-")[0].split(".")[:2]
    return int(major), int("".join(filter(str.isdigit, minor)))
