"""Snapshots of logical volumes, thin and classic."""

from snapbreaker_backends.lvm.backend import LvmBackend

__all__ = ["LvmBackend"]
