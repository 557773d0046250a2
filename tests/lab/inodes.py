"""Inode flags and project ids by ioctl, for tests and for the hostile deploy (standard library only)."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602  # linux/fs.h
FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
SYNC, IMMUTABLE, APPEND, NODUMP, NOATIME = 0x8, 0x10, 0x20, 0x40, 0x80  # ioctl_iflags(2)
NOCOW = 0x800000  # btrfs

Name = str | bytes | Path


def flags(path: Name) -> int:
    """The inode flags of a regular file or directory."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        return int(struct.unpack("=l", fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8))[:4])[0])
    finally:
        os.close(fd)


def set_flags(path: Name, value: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("=l4x", value))
    finally:
        os.close(fd)


def add_flags(path: Name, extra: int) -> None:
    set_flags(path, flags(path) | extra)


def remove_flags(path: Name, gone: int) -> None:
    set_flags(path, flags(path) & ~gone)


def set_project(path: Name, project: int) -> None:
    """Raises OSError (EOPNOTSUPP, ENOTTY) where the filesystem keeps no project ids."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        attributes = bytearray(fcntl.ioctl(fd, FS_IOC_FSGETXATTR, bytes(28)))
        struct.pack_into("=I", attributes, 12, project)
        fcntl.ioctl(fd, FS_IOC_FSSETXATTR, bytes(attributes))
    finally:
        os.close(fd)
