"""What is known of one path, and what can differ between two."""

from __future__ import annotations

import stat
from enum import Flag, auto
from typing import NamedTuple


class Entry(NamedTuple):
    """The result of lstat(2) of one path of a tree.

    ``path`` is relative to the tree's root, ``b""`` for the root itself, components separated by ``/``.
    ``mode`` holds the type bits too. ``subvolume`` is true for the root of a btrfs subvolume.
    A named tuple, not a dataclass: a walk makes hundreds of thousands of them a second.
    """

    path: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    ino: int
    nlink: int
    rdev: int
    dev: int = 0
    subvolume: bool = False

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


class Details(NamedTuple):
    """What lstat(2) does not tell: read only where it is needed.

    ``flags`` are the inode flags of FS_IOC_GETFLAGS that can be set again (ioctl_iflags(2)), ``project`` the
    project id of FS_IOC_FSGETXATTR, ``xattrs`` all extended attributes (ACLs and capabilities included) sorted
    by name, ``target`` the text of a symbolic link, ``read_only`` the read-only property of a btrfs subvolume.
    """

    flags: int = 0
    project: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    target: bytes = b""
    read_only: bool = False


class Aspect(Flag):
    """In what respects a path differs."""

    NONE = 0
    ADDED = auto()  # not in the old tree
    REMOVED = auto()  # not in the new tree
    TYPE = auto()
    CONTENT = auto()
    MODE = auto()
    OWNER = auto()
    XATTRS = auto()
    FLAGS = auto()
    PROJECT = auto()
    MTIME = auto()
    TARGET = auto()
    DEVICE = auto()
    LINKS = auto()  # the group of hard links is another one
    SPARSE = auto()


class Change(NamedTuple):
    """One path that differs: ``old`` is None when it was added, ``new`` when it was removed.

    Of one that is on both sides and of the same type ``was`` and ``now`` are the details, as they were compared.
    """

    path: bytes
    old: Entry | None
    new: Entry | None
    aspects: Aspect
    was: Details | None = None
    now: Details | None = None


def sort_key(path: bytes) -> bytes:
    """The order of every walk: depth first, a directory before what is in it, names by their bytes."""
    return path.replace(b"/", b"\0")
