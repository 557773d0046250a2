"""Which dataset a volume lies on, and the state of its pool. Reads /proc only: no program is run."""

from __future__ import annotations

import os

from snapbreaker.backend import Volume
from snapbreaker.errors import CheckpointError
from snapbreaker.linux.mountinfo import Mount, read_mounts
from snapbreaker.paths import below, relative

_KSTATS = "/proc/spl/kstat/zfs"


def mount_of(volume: Volume) -> Mount:
    """The mount that holds the volume. Its source is the dataset's name as it is now, also after `zfs rename`.

    Raises CheckpointError when no dataset is mounted there.
    """
    found = [mount for mount in read_mounts() if mount.mountpoint == volume.mountpoint]
    if not found or found[-1].fstype != "zfs":
        raise CheckpointError(f"no dataset is mounted at {volume.mountpoint}", "zfs mount DATASET")
    return found[-1]


def place_in(volume: Volume, mount: Mount) -> str:
    """Where the volume's root lies within its dataset; empty for its top."""
    return below(mount.root, relative(volume.root, volume.mountpoint)).strip("/")


def pool_of(dataset: str) -> str:
    return dataset.partition("/")[0]


def pool_state(pool: str) -> str:
    """``ONLINE``, ``DEGRADED``, ``SUSPENDED`` …; empty where the module does not say (before 0.8)."""
    try:
        with open(os.path.join(_KSTATS, pool, "state"), encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
