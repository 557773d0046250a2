"""btrfs: read-only snapshots of the subvolume that holds the volume and of those nested in it."""

from snapbreaker_backends.btrfs.backend import BtrfsBackend

__all__ = ["BtrfsBackend"]
