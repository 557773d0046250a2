"""Everything about a file but its content: modes, owners, times, xattrs, capabilities, ACLs, flags, projects."""

from __future__ import annotations

import os
import shutil
import struct
from contextlib import suppress
from pathlib import Path

from tests.lab import inodes

PROJINHERIT = 0x20000000  # linux/fs.h
# Seconds and nanoseconds: before 1970, the end of 32 bits, a day after it, and one that is not even.
TIMES = (-1, -86_400 * 10**9 - 7, (2**31 - 1) * 10**9, 2**31 * 10**9 + 86_400 * 10**9, 1_700_000_000_123_456_789)


def capability(*numbers: int) -> bytes:
    """The value of ``security.capability``, revision 2, permitted and effective (capabilities(7))."""
    mask = sum(1 << number for number in numbers)
    return struct.pack("<5I", 0x02000001, mask & 0xFFFFFFFF, 0, mask >> 32, 0)


def acl(user: int, rights: int) -> bytes:
    """An ACL with one named user (acl(5), linux/posix_acl_xattr.h); mode 0640 otherwise."""
    entries = ((1, 6, -1), (2, rights, user), (4, 4, -1), (16, 7, -1), (32, 0, -1))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)


def seed(root: Path) -> None:
    top = root / "attributes"
    top.mkdir()
    for name in (
        "chmod",
        "chown",
        "setuid",
        "touched",
        "capable",
        "uncapable",
        "acl",
        "no-acl",
        "xattr",
        "big-xattr",
    ):
        (top / name).write_text(name)
        (top / f"{name}.d").mkdir()
    (top / "setuid").chmod(0o6755)
    (top / "setuid.d").chmod(0o3775)
    os.chown(top / "setuid.d", 0, 50)
    (top / "setuid.d/inside").write_text("made before")
    (top / "shut").mkdir()
    (top / "shut/file").write_text("mode 0")
    (top / "shut/file").chmod(0)
    (top / "shut").chmod(0)
    os.setxattr(top / "uncapable", "security.capability", capability(10, 38))
    os.setxattr(top / "no-acl", "system.posix_acl_access", acl(7, 6))
    os.setxattr(top / "no-acl.d", "system.posix_acl_default", acl(7, 7))
    os.setxattr(top / "acl.d", "system.posix_acl_default", acl(9, 5))
    (top / "acl.d/heir").write_text("inherits")
    (top / "acl.d/plain").write_text("does not")
    os.removexattr(top / "acl.d/plain", "system.posix_acl_access")
    os.setxattr(top / "xattr", "user.changed", b"before")
    os.setxattr(top / "xattr", "user.removed", b"\0binary\xff")
    os.setxattr(top / "xattr", "user.empty", b"")
    os.setxattr(top / "big-xattr", "user.big", b"b" * 2000)
    (top / "symlink").symlink_to("nowhere")
    os.setxattr(top / "symlink", "trusted.x", b"on a link", follow_symlinks=False)
    _seed_flags(top / "flags")
    _seed_projects(top / "projects")
    for number, when in enumerate(TIMES):
        for name in (f"time-{number}", f"time-{number}.d"):
            (top / name).mkdir() if name.endswith(".d") else (top / name).write_text(name)
            os.utime(top / name, ns=(when, when))


def mutate(root: Path) -> None:
    top = root / "attributes"
    for path in (top / "chmod", top / "chmod.d"):
        path.chmod(0o4711)
    for path in (top / "chown", top / "chown.d", top / "symlink"):
        os.lchown(path, 1234, 4321)
    (top / "setuid").write_text("a write takes setuid away")
    os.chown(top / "setuid.d", 5, 6)
    (top / "setuid.d/inside").unlink()
    shutil.rmtree(top / "shut")
    for name in ("touched", "touched.d"):
        os.utime(top / name, ns=(0, 1))
    os.setxattr(top / "capable", "security.capability", capability(12))
    os.removexattr(top / "uncapable", "security.capability")
    for suffix in ("", ".d"):
        os.setxattr(top / f"acl{suffix}", "system.posix_acl_access", acl(8, 7))
    os.setxattr(top / "acl.d", "system.posix_acl_default", acl(11, 0))
    os.removexattr(top / "no-acl", "system.posix_acl_access")
    os.removexattr(top / "no-acl.d", "system.posix_acl_default")
    for name in ("heir", "plain"):
        (top / "acl.d" / name).unlink()
    os.setxattr(top / "xattr", "user.changed", b"after")
    os.removexattr(top / "xattr", "user.removed")
    os.removexattr(top / "xattr", "user.empty")
    os.setxattr(top / "xattr", "user.added", b"new")
    (top / "big-xattr").unlink()
    os.removexattr(top / "symlink", "trusted.x", follow_symlinks=False)
    _change_flags(top / "flags")
    _change_projects(top / "projects")
    for number in range(len(TIMES)):
        (top / f"time-{number}").write_text("later")
        (top / f"time-{number}.d/new").mkdir()


def _seed_flags(top: Path) -> None:
    top.mkdir()
    for name in ("immutable", "append", "nodump", "gains", "loses"):
        (top / name).write_text(name)
        (top / f"{name}.d").mkdir()
        (top / f"{name}.d/file").write_text(name)
    for name, flag in (("immutable", inodes.IMMUTABLE), ("append", inodes.APPEND), ("nodump", inodes.NODUMP)):
        inodes.add_flags(top / f"{name}.d", flag)
        inodes.add_flags(top / name, flag)
    for name, flags in (("loses", inodes.NOATIME | inodes.SYNC), ("loses.d", inodes.NOATIME | inodes.NODUMP)):
        try:
            inodes.add_flags(top / name, flags)
        except OSError:  # ZFS has no others
            inodes.add_flags(top / name, inodes.NODUMP)


def _change_flags(top: Path) -> None:
    for name, flag in (("immutable", inodes.IMMUTABLE), ("append", inodes.APPEND)):
        for path in (top / name, top / f"{name}.d"):
            inodes.remove_flags(path, flag)
        (top / name).write_text("written after chattr -i")
        (top / f"{name}.d/file").unlink()
    inodes.set_flags(top / "loses", 0)
    inodes.set_flags(top / "loses.d", 0)
    shutil.rmtree(top / "nodump.d")
    # What can be neither written nor removed until its flag is gone: old and new, files and directories.
    (top / "gains").write_text("then locked")
    (top / "gains.d/new").write_text("in a locked directory")
    (top / "made.d/nested").mkdir(parents=True)
    (top / "made.d/nested/file").write_text("locked")
    for name in ("gains", "gains.d/new", "gains.d", "made.d/nested/file", "made.d/nested", "made.d"):
        inodes.add_flags(top / name, inodes.IMMUTABLE if "made" in name else inodes.IMMUTABLE | inodes.APPEND)


def _seed_projects(top: Path) -> None:
    for name in ("a", "b"):
        (top / name).mkdir(parents=True)
    with suppress(OSError):  # where the filesystem keeps no project ids
        for number, name in enumerate(("a", "b"), 100):
            inodes.set_project(top / name, number)
            inodes.add_flags(top / name, PROJINHERIT)
    for name in ("a", "b"):
        (top / name / "changed").write_text(name)
        (top / name / "removed").write_text(name)
        (top / name / "symlink").symlink_to(name)
        (top / name / "directory").mkdir()


def _change_projects(top: Path) -> None:
    with suppress(OSError):
        inodes.set_project(top / "a/changed", 7)
        inodes.set_project(top / "b", 8)
        inodes.remove_flags(top / "b", PROJINHERIT)
    for name in ("a", "b"):
        (top / name / "removed").unlink()
        (top / name / "symlink").unlink()
        (top / name / "directory").rmdir()
