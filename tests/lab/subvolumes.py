"""btrfs subvolumes by ioctl (linux/btrfs.h), for tests and for the hostile deploy (standard library only)."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

SUBVOL_CREATE, SNAP_CREATE, SNAP_DESTROY = 0x5000940E, 0x50009401, 0x5000940F
SUBVOL_GETFLAGS, SUBVOL_SETFLAGS = 0x80089419, 0x4008941A
RDONLY = 1 << 1

Name = str | bytes | Path


def create(path: Name) -> None:
    _by_name(SUBVOL_CREATE, path, 0)


def snapshot(source: Name, path: Name) -> None:
    fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _by_name(SNAP_CREATE, path, fd)
    finally:
        os.close(fd)


def delete(path: Name) -> None:
    """Delete a subvolume with all that is in it; OSError (ENOTEMPTY) when it holds another subvolume."""
    _by_name(SNAP_DESTROY, path, 0)


def set_read_only(path: Name, value: bool) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flags = struct.unpack("=Q", fcntl.ioctl(fd, SUBVOL_GETFLAGS, bytes(8)))[0]
        fcntl.ioctl(fd, SUBVOL_SETFLAGS, struct.pack("=Q", flags | RDONLY if value else flags & ~RDONLY))
    finally:
        os.close(fd)


def _by_name(request: int, path: Name, fd: int) -> None:
    """The ioctls that take ``struct btrfs_ioctl_vol_args``: a descriptor and a name in the directory asked."""
    parent, name = os.path.split(os.fsencode(path))
    directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Mutable, since fcntl.ioctl takes at most 1024 immutable bytes.
        fcntl.ioctl(directory, request, bytearray(struct.pack("=q4088s", fd, name)))
    finally:
        os.close(directory)
