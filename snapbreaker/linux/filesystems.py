"""Kinds of filesystems, and which one a path lies on, by the magic number of statfs(2)."""

from __future__ import annotations

import ctypes
import os
from enum import Enum, auto

from snapbreaker.linux.libc import check, function


class Kind(Enum):
    LOCAL = auto()
    KERNEL = auto()  # an interface, no files
    MEMORY = auto()
    NETWORK = auto()  # others can change it
    SERVED = auto()  # by a program: FUSE


_KERNEL = """autofs bdev binder binfmt_misc bpf cgroup cgroup2 configfs cpuset debugfs devpts devtmpfs efivarfs
    functionfs fusectl hugetlbfs mqueue nsfs proc pstore resctrl rpc_pipefs securityfs selinuxfs sysfs tracefs"""
_NETWORK = "9p afs beegfs ceph cifs coda gfs2 glusterfs lustre nfs nfs4 ocfs2 orangefs smb3 smbfs vboxsf virtiofs"
_KINDS = {
    **dict.fromkeys(_KERNEL.split(), Kind.KERNEL),
    **dict.fromkeys(("ramfs", "tmpfs"), Kind.MEMORY),
    **dict.fromkeys(_NETWORK.split(), Kind.NETWORK),
    **dict.fromkeys(("fuse", "fuseblk"), Kind.SERVED),
}

# <linux/magic.h> and the filesystems' own sources; the names are those of /proc/filesystems.
_NAMES = {
    0xEF53: "ext4",  # ext2 and ext3 have the same number
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
    0xCA451A4E: "bcachefs",
    0x794C7630: "overlay",
    0x01021994: "tmpfs",
    0x858458F6: "ramfs",
    0x9FA0: "proc",
    0x62656572: "sysfs",
    0x64626720: "debugfs",
    0x74726163: "tracefs",
    0x62656570: "configfs",
    0x27E0EB: "cgroup",
    0x63677270: "cgroup2",
    0x1CD1: "devpts",
    0x958458F6: "hugetlbfs",
    0x19800202: "mqueue",
    0x73636673: "securityfs",
    0xCAFE4A11: "bpf",
    0x6165676C: "pstore",
    0xDE5E81E4: "efivarfs",
    0x42494E4D: "binfmt_misc",
    0x0187: "autofs",
    0x6E736673: "nsfs",
    0x6969: "nfs",
    0xFF534D42: "cifs",
    0xFE534D42: "smb3",
    0x00C36400: "ceph",
    0x01021997: "9p",
    0x65735546: "fuse",
    0x73717368: "squashfs",
    0x9660: "iso9660",
    0xE0F5E1E2: "erofs",
    0x4D44: "vfat",
    0x2011BAB0: "exfat",
    0x7366746E: "ntfs3",
}
_FOLDING = frozenset({"vfat", "exfat", "ntfs3"})
_MASK = 0xFFFFFFFF


class _StatFs(ctypes.Structure):
    # Only the first field is read; the rest is room for struct statfs of any architecture (120 bytes on x86_64).
    _fields_ = (("type", ctypes.c_long), ("rest", ctypes.c_char * 504))


_statfs = function("statfs", ctypes.c_char_p, ctypes.POINTER(_StatFs))
_fstatfs = function("fstatfs", ctypes.c_int, ctypes.POINTER(_StatFs))


def kind(fstype: str) -> Kind:
    """What sort of filesystem ``fstype`` is (as in /proc/self/mountinfo, ``fuse.sshfs`` too)."""
    return _KINDS.get(fstype) or _KINDS.get(fstype.partition(".")[0], Kind.LOCAL)


def filesystem_type(where: str | bytes | int) -> str:
    """The name of the filesystem that holds a path (links followed) or an open file. Raises OSError.

    The magic number where that is not known.
    """
    facts = _StatFs()
    if isinstance(where, int):
        check(_fstatfs(where, ctypes.byref(facts)), "fstatfs")
    else:
        check(_statfs(os.fsencode(where), ctypes.byref(facts)), "statfs", where)
    magic = int(facts.type) & _MASK
    return _NAMES.get(magic, f"{magic:#x}")


def folds_case(fd: int) -> bool:
    """Whether a file of the filesystem of ``fd`` is found by another spelling of its name, too. Raises OSError."""
    return filesystem_type(fd) in _FOLDING
