"""An independent judge of "exactly as it was": its own walk, its own reading of every attribute.

Imports nothing from snapbreaker. Writes nothing, and opens with O_NOATIME. Needs root and /proc.

    python3 tests/comparer.py save ROOT FILE [EXCLUDE…]     record the tree below ROOT
    python3 tests/comparer.py diff ROOT FILE [EXCLUDE…]     print every difference; exit 1 when there is one
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import pickle
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

FS_IOC_GETFLAGS = 0x80086601  # linux/fs.h
FS_IOC_FSGETXATTR = 0x801C581F  # linux/fs.h, struct fsxattr: xflags, extsize, nextents, projid, cowextsize, pad
BTRFS_IOC_SUBVOL_GETFLAGS = 0x80089419  # linux/btrfs.h
BTRFS_SUBVOL_RDONLY = 1 << 1
BTRFS_FIRST_FREE_OBJECTID = 256  # inode number of the root of every subvolume

# Inode flags that the filesystem sets for itself (linux/fs.h, fs/ext4/ext4.h): they say how something is
# stored, not what it is.
KERNEL_FLAGS = (
    0x00000100  # DIRTY
    | 0x00000200  # COMPRBLK
    | 0x00000800  # ENCRYPT
    | 0x00001000  # INDEX, a directory that was large once
    | 0x00040000  # HUGE_FILE
    | 0x00080000  # EXTENT
    | 0x00100000  # VERITY
    | 0x00200000  # EA_INODE
    | 0x00400000  # EOFBLOCKS
    | 0x10000000  # INLINE_DATA
)
# FS_IOC_GETFLAGS or xattrs are unknown there (tmpfs of old kernels, proc).
UNSUPPORTED = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
VAULT = b".snapbreaker"
BLOCK = 1 << 20
ZEROS = bytes(BLOCK)


class Facts(NamedTuple):
    """What one path is. Two trees are the same when all of it is equal for every path.

    ``kind`` is a word (``file``, ``directory``, ``mountpoint`` …); ``data`` are the (start, end) ranges of a
    sparse file that hold data, in bytes; ``linked`` is the first path of the group of hard links, empty for a
    path that is alone in the tree (links from outside do not count); ``subvolume`` is ``rw`` or ``ro`` for the
    root of a btrfs subvolume, else empty.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    rdev: int
    digest: str
    data: tuple[tuple[int, int], ...]
    target: bytes
    xattrs: tuple[tuple[bytes, bytes], ...]
    flags: int
    project: int
    linked: bytes
    subvolume: str


KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
}


def snapshot(root: bytes | str | os.PathLike[str], exclude: Iterable[bytes] = ()) -> dict[bytes, Facts]:
    """The facts of every path below ``root`` (``b""`` is the root itself), keyed by relative path.

    ``exclude`` are relative paths left out with all below them. ``.snapbreaker`` is left out at the root and at
    the root of every btrfs subvolume. Other mounts are named (``mountpoint``), not entered.
    """
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME)
    try:
        facts: dict[bytes, Facts] = {}
        links: dict[tuple[int, int], list[bytes]] = {}
        for path, about, status in _walk(top, frozenset(exclude)):
            facts[path] = about
            if about.kind != "directory" and status.st_nlink > 1:
                links.setdefault((status.st_dev, status.st_ino), []).append(path)
    finally:
        os.close(top)
    for group in links.values():
        if len(group) > 1:
            first = min(group)
            for path in group:
                facts[path] = facts[path]._replace(linked=first)
    return facts


def differences(old: dict[bytes, Facts], new: dict[bytes, Facts]) -> list[str]:
    """One readable line for each fact that is not the same, in order of path; empty when nothing differs."""
    found = []
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path), new.get(path)
        if before is None or after is None:
            kind = (before or after).kind  # type: ignore[union-attr]
            found.append(f"{path!r}: {'missing' if after is None else 'extra'} {kind}")
            continue
        for name, was, now in zip(Facts._fields, before, after, strict=True):
            if was != now:
                found.append(f"{path!r}: {name} {_shown(name, was)} -> {_shown(name, now)}")
    return found


def _shown(name: str, value: object) -> str:
    if name in ("mode", "flags") and isinstance(value, int):
        return oct(value) if name == "mode" else hex(value)
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"


def _walk(top: int, exclude: frozenset[bytes]) -> Iterator[tuple[bytes, Facts, os.stat_result]]:
    """Depth first with one descriptor a level, so a path may be longer than PATH_MAX."""
    status = os.fstat(top)
    yield b"", _facts_of_open(top, status, _subvolume(top, status)), status
    stack = [(os.dup(top), b"", status.st_dev, _names(top, at_volume_root=True))]
    try:
        while stack:
            parent, prefix, device, names = stack[-1]
            if not names:
                os.close(parent)
                stack.pop()
                continue
            name = names.pop()
            path = prefix + name
            if path in exclude:
                continue
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                yield path, _facts(parent, name, status), status
                continue
            if status.st_dev != device and status.st_ino != BTRFS_FIRST_FREE_OBJECTID:
                yield path, _bare("mountpoint"), status
                continue
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME, dir_fd=parent)
            subvolume = _subvolume(fd, status)
            stack.append((fd, path + b"/", status.st_dev, _names(fd, at_volume_root=bool(subvolume))))
            yield path, _facts_of_open(fd, status, subvolume), status
    finally:
        for fd, *_ in stack:
            os.close(fd)


def _names(fd: int, at_volume_root: bool) -> list[bytes]:
    names = [os.fsencode(name) for name in os.listdir(fd)]
    return [name for name in names if not (at_volume_root and name == VAULT)]


def _facts(parent: int, name: bytes, status: os.stat_result) -> Facts:
    if stat.S_ISREG(status.st_mode):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_NONBLOCK
        fd = os.open(name, flags, dir_fd=parent)
        try:
            return _facts_of_open(fd, status, "")
        finally:
            os.close(fd)
    # Not opened: a fifo would block, a device would act. The parent's link in /proc serves for the xattrs.
    target = os.readlink(name, dir_fd=parent) if stat.S_ISLNK(status.st_mode) else b""
    return _bare(KINDS[stat.S_IFMT(status.st_mode)])._replace(
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        rdev=status.st_rdev,
        target=target,
        xattrs=_xattrs(b"/proc/self/fd/%d/%s" % (parent, name)),
    )


def _facts_of_open(fd: int, status: os.stat_result, subvolume: str) -> Facts:
    """The facts of an open regular file or directory."""
    regular = stat.S_ISREG(status.st_mode)
    flags, project = _inode_flags(fd)
    return Facts(
        kind=KINDS[stat.S_IFMT(status.st_mode)],
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if regular else 0,
        mtime_ns=status.st_mtime_ns,
        rdev=0,
        digest=_digest(fd, status.st_size) if regular else "",
        data=tuple(_data_ranges(fd, status.st_size)) if regular else (),
        target=b"",
        xattrs=_xattrs(fd),
        flags=flags,
        project=project,
        linked=b"",
        subvolume=subvolume,
    )


def _bare(kind: str) -> Facts:
    return Facts(kind, 0, 0, 0, 0, 0, 0, "", (), b"", (), 0, 0, b"", "")


def _digest(fd: int, size: int) -> str:
    """SHA-256 of every block that is not all zeros, with its offset: equal for equal content, wherever holes are.

    Holes are not read, since a sparse file may be terabytes.
    """
    digest = hashlib.sha256()
    done = 0
    for start, end in _data_ranges(fd, size):
        offset = max(done, start - start % BLOCK)
        while offset < end:
            block = os.pread(fd, BLOCK, offset)
            if len(block) != min(BLOCK, size - offset):
                raise OSError(errno.EIO, f"file changed while it was read: {offset + len(block)} of {size} bytes")
            if block != ZEROS[: len(block)]:
                digest.update(struct.pack("=Q", offset) + block)
            offset += BLOCK
        done = offset
    return digest.hexdigest()


def _data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where data lies, by SEEK_DATA and SEEK_HOLE (lseek(2)); a file without holes is one range."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def _xattrs(where: int | bytes) -> tuple[tuple[bytes, bytes], ...]:
    """All extended attributes: user, trusted, capabilities (``security.capability``) and ACLs."""
    follow = isinstance(where, int)
    try:
        names = sorted(os.listxattr(where, follow_symlinks=follow))
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return ()
        raise
    return tuple((os.fsencode(name), os.getxattr(where, name, follow_symlinks=follow)) for name in names)


def _inode_flags(fd: int) -> tuple[int, int]:
    """Inode flags that a user can set (ioctl_iflags(2)) and the project id (ioctl_xfs_fsgetxattr(2))."""
    flags = project = 0
    try:
        flags = struct.unpack("=l", fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8))[:4])[0] & ~KERNEL_FLAGS
        project = struct.unpack_from("=I", fcntl.ioctl(fd, FS_IOC_FSGETXATTR, bytes(28)), 12)[0]
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    return flags & 0xFFFFFFFF, project


def _subvolume(fd: int, status: os.stat_result) -> str:
    if status.st_ino != BTRFS_FIRST_FREE_OBJECTID:
        return ""
    try:
        answer = fcntl.ioctl(fd, BTRFS_IOC_SUBVOL_GETFLAGS, bytes(8))
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return ""  # inode 256 of another filesystem
        raise
    return "ro" if struct.unpack("=Q", answer)[0] & BTRFS_SUBVOL_RDONLY else "rw"


def main(arguments: list[str]) -> int:
    if len(arguments) < 3 or arguments[0] not in ("save", "diff"):
        print(__doc__, file=sys.stderr)
        return 2
    verb, root, file, *excluded = arguments
    exclude = [os.fsencode(path) for path in excluded]
    if verb == "save":
        with open(file, "wb") as out:
            pickle.dump({path: tuple(facts) for path, facts in snapshot(root, exclude).items()}, out)
        return 0
    with open(file, "rb") as saved:
        old = {path: Facts(*values) for path, values in pickle.load(saved).items()}
    found = differences(old, snapshot(root, exclude))
    print("\n".join(found) or "no difference")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
