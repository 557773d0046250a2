"""Every system call of the file engine that changes a file, in one place.

All work on a descriptor, or on one name in an open directory, and none follows a symbolic link. ``before``, when
set, is called with the operation and the name (``b""`` where a descriptor says it) ahead of each: tests make it
raise OSError or end the process, so that every step of a restore is known to fail and to be cut off well.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from snapbreaker.files import content as contents
from snapbreaker.files.tree import Content
from snapbreaker.linux import btrfs, inode, writeback, xattr

before: Callable[[str, bytes], None] | None = None

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _announce(operation: str, name: bytes = b"") -> None:
    if before is not None:
        before(operation, name)


def rename(old_dir: int, old: bytes, new_dir: int, new: bytes) -> None:
    """Move to a name that must be free (EEXIST)."""
    _announce("rename", new)
    inode.renameat2(old_dir, old, new_dir, new, inode.RENAME_NOREPLACE)


def replace(directory: int, old: bytes, new: bytes) -> None:
    """Move over a file of the same directory, which is gone afterwards: for files of our own only."""
    _announce("replace", new)
    os.rename(old, new, src_dir_fd=directory, dst_dir_fd=directory)


def move(old_dir: int, old: bytes, new_dir: int, new: bytes) -> None:
    """Move to another name; what had that is gone (rename(2): a file, or an empty directory for a directory)."""
    _announce("move", new)
    os.rename(old, new, src_dir_fd=old_dir, dst_dir_fd=new_dir)


def exchange(one_dir: int, one: bytes, other_dir: int, other: bytes) -> None:
    """Swap two names; both must exist (ENOENT). Atomically, but on vfat before Linux 6.0 by three renames."""
    _announce("exchange", other)
    try:
        inode.renameat2(one_dir, one, other_dir, other, inode.RENAME_EXCHANGE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        exchange_by_three(one_dir, one, other_dir, other)


def exchange_by_three(one_dir: int, one: bytes, other_dir: int, other: bytes) -> None:
    """Cut off in the middle, ``other`` is missing, and another attempt brings it back."""
    aside = one + b".aside"
    inode.renameat2(other_dir, other, one_dir, aside, inode.RENAME_NOREPLACE)
    try:
        inode.renameat2(one_dir, one, other_dir, other, inode.RENAME_NOREPLACE)
    except OSError:
        inode.renameat2(one_dir, aside, other_dir, other, inode.RENAME_NOREPLACE)
        raise
    inode.renameat2(one_dir, aside, one_dir, one, inode.RENAME_NOREPLACE)


def create(directory: int, name: bytes) -> int:
    """Make an empty regular file, 0600, and return a descriptor for reading and writing."""
    _announce("create", name)
    return os.open(name, _CREATE, 0o600, dir_fd=directory)


def mkdir(directory: int, name: bytes) -> None:
    """Make a directory that only its owner can enter."""
    _announce("mkdir", name)
    os.mkdir(name, 0o700, dir_fd=directory)


def mknod(directory: int, name: bytes, mode: int, rdev: int) -> None:
    """Make a fifo, socket or device."""
    _announce("mknod", name)
    os.mknod(name, stat.S_IFMT(mode) | 0o600, rdev, dir_fd=directory)


def symlink(target: bytes, directory: int, name: bytes) -> None:
    _announce("symlink", name)
    os.symlink(target, name, dir_fd=directory)


def link(old_dir: int, old: bytes, new_dir: int, new: bytes) -> None:
    _announce("link", new)
    os.link(old, new, src_dir_fd=old_dir, dst_dir_fd=new_dir, follow_symlinks=False)


def unlink(directory: int, name: bytes | str) -> None:
    _announce("unlink", os.fsencode(name))
    os.unlink(name, dir_fd=directory)


def rmdir(directory: int, name: bytes | str) -> None:
    _announce("rmdir", os.fsencode(name))
    os.rmdir(name, dir_fd=directory)


def create_subvolume(directory: int, name: bytes) -> None:
    _announce("create_subvolume", name)
    btrfs.create_subvolume(directory, name)


def snapshot_subvolume(source: int, directory: int, name: bytes) -> None:
    """A writable snapshot of the subvolume ``source``."""
    _announce("snapshot_subvolume", name)
    btrfs.create_snapshot(source, directory, name, read_only=False)


def delete_subvolume(directory: int, name: bytes) -> None:
    _announce("delete_subvolume", name)
    btrfs.delete_subvolume(directory, name)


def set_default_subvolume(fd: int, identity: int) -> None:
    _announce("set_default_subvolume")
    btrfs.set_default(fd, identity)


def set_subvolume_read_only(fd: int, read_only: bool) -> None:
    if btrfs.is_read_only(fd) != read_only:
        _announce("set_subvolume_read_only")
        btrfs.set_read_only(fd, read_only)


def fill(fd: int, content: Content) -> None:
    """Give the empty file ``fd`` the bytes and holes of ``content``, as a clone where the filesystem can."""
    _announce("fill")
    contents.copy_content(content, fd)


def write(fd: int, data: bytes) -> None:
    """Append all of ``data``."""
    _announce("write")
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def chown(fd: int, uid: int, gid: int) -> None:
    _announce("chown")
    os.fchown(fd, uid, gid)


def chown_name(directory: int, name: bytes, uid: int, gid: int) -> None:
    _announce("chown", name)
    os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)


def chmod(fd: int, mode: int) -> None:
    _announce("chmod")
    os.fchmod(fd, stat.S_IMODE(mode))


def chmod_name(directory: int, name: bytes, mode: int) -> None:
    """Change the mode of a fifo, socket or device in a directory that only root can write to.

    Linux before 6.6 has no fchmodat2, so this would follow a symbolic link: never for names in the live tree.
    """
    _announce("chmod", name)
    os.chmod(name, stat.S_IMODE(mode), dir_fd=directory)


def set_xattr(fd: int, name: bytes, value: bytes) -> None:
    _announce("set_xattr", name)
    os.setxattr(fd, name, value)


def remove_xattr(fd: int, name: bytes) -> None:
    _announce("remove_xattr", name)
    os.removexattr(fd, name)


def set_xattr_name(directory: int, name: bytes, attribute: bytes, value: bytes) -> None:
    """Set an extended attribute of something that cannot be opened: a symbolic link, a fifo, a device."""
    _announce("set_xattr", attribute)
    xattr.set_xattr_at(directory, name, attribute, value)


def remove_xattr_name(directory: int, name: bytes, attribute: bytes) -> None:
    _announce("remove_xattr", attribute)
    xattr.remove_xattr_at(directory, name, attribute)


def set_flags(fd: int, flags: int) -> None:
    _announce("set_flags")
    inode.set_flags(fd, flags)


def set_project(fd: int, project: int) -> None:
    _announce("set_project")
    inode.set_project(fd, project)


def set_mtime(fd: int, mtime_ns: int, atime_ns: int | None = None) -> None:
    """Set the modification time; the access time, which is not recorded, becomes the same where none is given."""
    _announce("set_mtime")
    os.utime(fd, ns=(mtime_ns if atime_ns is None else atime_ns, mtime_ns))


def set_mtime_name(directory: int, name: bytes, mtime_ns: int) -> None:
    _announce("set_mtime", name)
    os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=directory, follow_symlinks=False)


def fsync(fd: int) -> None:
    _announce("fsync")
    os.fsync(fd)


def syncfs(fd: int) -> None:
    _announce("syncfs")
    writeback.syncfs(fd)
