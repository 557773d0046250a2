"""ZFS: one snapshot of all datasets in scope, taken at one instant."""

from snapbreaker_backends.zfs.backend import ZfsBackend

__all__ = ["ZfsBackend"]
