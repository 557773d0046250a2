"""What is known of one path, and what can differ between two."""

from __future__ import annotations

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
        return self[1] & 0o170000 == 0o040000

    @property
    def is_file(self) -> bool:
        return self[1] & 0o170000 == 0o100000

    @property
    def is_link(self) -> bool:
        return self[1] & 0o170000 == 0o120000


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


class Aspect:
    """In what respects a path differs: bits of an int. An ``enum.Flag`` takes a microsecond for each operation."""

    NONE = 0
    ADDED = 1  # not in the old tree
    REMOVED = 2  # not in the new tree
    TYPE = 4
    CONTENT = 8
    MODE = 16
    OWNER = 32
    XATTRS = 64
    FLAGS = 128
    PROJECT = 256
    MTIME = 512
    TARGET = 1024
    DEVICE = 2048
    LINKS = 4096  # the group of hard links is another one
    SPARSE = 8192


_NAMES = {value: name.lower() for name, value in vars(Aspect).items() if name.isupper() and value}


def aspect_names(aspects: int) -> tuple[str, ...]:
    """The names of the ``Aspect`` bits, lower case."""
    return tuple(name for bit, name in _NAMES.items() if aspects & bit)


class Change(NamedTuple):
    """One path that differs: ``old`` is None when it was added, ``new`` when it was removed.

    Of one that is on both sides and of the same type ``was`` and ``now`` are the details, as they were compared.
    """

    path: bytes
    old: Entry | None
    new: Entry | None
    aspects: int  # of ``Aspect``
    was: Details | None = None
    now: Details | None = None


def sort_key(path: bytes) -> bytes:
    """The order of every walk: depth first, a directory before what is in it, names by their bytes."""
    return path.replace(b"/", b"\0")
