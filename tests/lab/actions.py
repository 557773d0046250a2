"""What can be done to one name or one inode: the single steps of random tests.

Each takes a number, and what it makes of that is its own. OSError where it is not possible.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from tests.lab import inodes, subvolumes
from tests.lab.hostile_attributes import PROJINHERIT, TIMES, acl, capability
from tests.lab.hostile_content import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE

NAMES = (b"a", b"b", b"c", b"a.b", b"a-", b"new\nline", b"\xff\xfe \x80", b"n" * 255)
NUMBERS = range(6)  # what an operation makes of its number is its own
BEYOND_PATH_MAX = 22  # directories with names of 200 bytes
HUGE = 2 << 40  # bytes; less than the largest file of ext4

_KIB, _MIB = 1 << 10, 1 << 20
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FLAGS = (inodes.IMMUTABLE, inodes.APPEND, inodes.NODUMP, inodes.NOATIME, inodes.SYNC, inodes.NODUMP | inodes.SYNC)
_MODES = (0, 0o4755, 0o2750, 0o1777, 0o6711, 0o640)
_XATTRS = (
    ("user.one", b"\0binary\xff"),
    ("user.two", b""),
    ("trusted.one", b"t" * 1000),
    ("security.one", b"s"),
    ("security.capability", capability(10, 38)),
    ("user.one", b"another value"),
)
_NODES = (
    (stat.S_IFIFO, 0),
    (stat.S_IFSOCK, 0),
    (stat.S_IFCHR, os.makedev(1, 3)),
    (stat.S_IFCHR, os.makedev(1, 5)),
    (stat.S_IFBLK, os.makedev(240, 17)),
    (stat.S_IFIFO, 0),
)
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Place(NamedTuple):
    """A name in an open directory."""

    directory: int
    name: bytes

    @property
    def path(self) -> bytes:
        """For calls that take no descriptor; it follows nothing above the name."""
        return b"/proc/self/fd/%d/%s" % (self.directory, self.name)

    def open(self, flags: int) -> int:
        """A regular file or a directory; OSError for what would block or act."""
        mode = os.stat(self.name, dir_fd=self.directory, follow_symlinks=False).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise FileExistsError
        return os.open(self.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self.directory)


# Names: what there is, and where.


def write(place: Place, number: int) -> None:
    """Small, larger, with holes, only a hole, huge, larger than what is gathered in memory."""
    fd = os.open(place.name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=place.directory)
    try:
        os.write(fd, b"%d %s\n" % (number, place.name) * (3000 if number == 1 else 1))
        if number == 2:
            os.pwrite(fd, b"island" * 999, 300_000)
            os.ftruncate(fd, _MIB)
        elif number == 3:
            os.ftruncate(fd, 16 * _MIB)
        elif number == 4:
            os.pwrite(fd, b"at the very end", HUGE)
        elif number == 5:
            os.write(fd, os.urandom(100 * _KIB))
    finally:
        os.close(fd)


def directory(place: Place, number: int) -> None:
    """With something in it, or without."""
    os.mkdir(place.name, 0o755, dir_fd=place.directory)
    if number % 2:
        fd = os.open(place.name, DIRECTORY, dir_fd=place.directory)
        try:
            for name in NAMES[:number]:
                write(Place(fd, name), 0)
        finally:
            os.close(fd)


def deep(place: Place, number: int) -> None:
    """A file that no single path can name, made or written again."""
    fd, step = os.dup(place.directory), place.name
    try:
        for _ in range(BEYOND_PATH_MAX if number else 3):
            with suppress(FileExistsError):
                os.mkdir(step, dir_fd=fd)
            below = os.open(step, DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd, step = below, b"d" * 200
        write(Place(fd, b"bottom"), 0) if number < 3 else edit(Place(fd, b"bottom"), number)
    finally:
        os.close(fd)


def symlink(place: Place, number: int) -> None:
    os.symlink((NAMES[0], b"/nowhere", b"..", b"t" * 3000, b".", NAMES[6])[number], place.path)


def node(place: Place, number: int) -> None:
    kind, device = _NODES[number]
    os.mknod(place.name, kind | 0o640, device, dir_fd=place.directory)


def remove(place: Place, number: int) -> None:
    if stat.S_ISDIR(os.stat(place.name, dir_fd=place.directory, follow_symlinks=False).st_mode):
        shutil.rmtree(place.name, dir_fd=place.directory)
    else:
        os.unlink(place.name, dir_fd=place.directory)


def become(place: Place, number: int) -> None:
    """Something else under the same name."""
    with suppress(FileNotFoundError):
        remove(place, 0)
    (write, directory, symlink, node, subvolume, node)[number](place, number)


def replace(place: Place, number: int) -> None:
    """The way of packages and editors: written beside, then renamed over."""
    beside = place._replace(name=b"beside-%d" % os.getpid())
    write(beside, number)
    try:
        os.rename(beside.name, place.name, src_dir_fd=place.directory, dst_dir_fd=place.directory)
    except OSError:
        os.unlink(beside.name, dir_fd=place.directory)
        raise


def link(one: Place, other: Place) -> None:
    os.link(one.name, other.name, src_dir_fd=one.directory, dst_dir_fd=other.directory, follow_symlinks=False)


def split(place: Place, number: int) -> None:
    """The same content under the name, but no longer the same file."""
    fd = place.open(os.O_RDONLY)
    try:
        facts = os.fstat(fd)
        content = os.read(fd, _MIB)
    finally:
        os.close(fd)
    os.unlink(place.name, dir_fd=place.directory)
    fd = os.open(place.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, facts.st_mode & 0o777, dir_fd=place.directory)
    os.write(fd, content)
    os.utime(fd, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    os.close(fd)


def rename(one: Place, other: Place) -> None:
    os.rename(one.name, other.name, src_dir_fd=one.directory, dst_dir_fd=other.directory)


def exchange(one: Place, other: Place) -> None:
    _checked(_libc.renameat2(one.directory, one.name, other.directory, other.name, 2))


def subvolume(place: Place, number: int) -> None:
    """On btrfs: made, with a file in it; at 5 with another one in it. Elsewhere OSError."""
    subvolumes.create(place.path)
    fd = os.open(place.name, DIRECTORY, dir_fd=place.directory)
    try:
        write(Place(fd, b"a"), 0)
        if number == 5:
            subvolume(Place(fd, b"b"), 0)
    finally:
        os.close(fd)


def remove_subvolume(place: Place, number: int) -> None:
    subvolumes.delete(place.path)


def read_only(place: Place, number: int) -> None:
    subvolumes.set_read_only(place.path, bool(number % 2))


def snapshot(one: Place, other: Place) -> None:
    subvolumes.snapshot(one.path, other.path)


# Content, in place.


def edit(place: Place, number: int) -> None:
    """Written, cut, grown, punched, through a mapping, and with the old mtime."""
    fd = place.open(os.O_RDWR)
    try:
        facts = os.fstat(fd)
        if number == 0:
            os.pwrite(fd, b"edited", min(facts.st_size, 2))
        elif number == 1:
            os.ftruncate(fd, facts.st_size // 2 if facts.st_size < HUGE else HUGE // 2)
        elif number == 2:
            os.pwrite(fd, b"appended", facts.st_size)
        elif number == 3:
            _fallocate(fd, FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE, 0, 64 * _KIB)
        elif number == 4 and 0 < facts.st_size < _MIB:
            with mmap.mmap(fd, facts.st_size) as memory:
                memory[0:1] = b"M"
        elif number == 5:
            os.pwrite(fd, b"H", 0)
            os.utime(fd, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    finally:
        os.close(fd)


def truncate(place: Place, number: int) -> None:
    fd = place.open(os.O_WRONLY | os.O_TRUNC)
    os.close(fd)


# Everything else of an inode.


def mode(place: Place, number: int) -> None:
    os.close(place.open(os.O_RDONLY))
    os.chmod(place.name, _MODES[number], dir_fd=place.directory)


def owner(place: Place, number: int) -> None:
    os.chown(place.name, number, 2 * number, dir_fd=place.directory, follow_symlinks=False)


def times(place: Place, number: int) -> None:
    when = (*TIMES, -1)[number]
    os.utime(place.name, ns=(when, when), dir_fd=place.directory, follow_symlinks=False)


def attribute(place: Place, number: int) -> None:
    os.setxattr(place.path, *_XATTRS[number], follow_symlinks=False)


def remove_attribute(place: Place, number: int) -> None:
    os.removexattr(place.path, _XATTRS[number][0], follow_symlinks=False)


def access(place: Place, number: int) -> None:
    """ACLs: of files and directories, and those that directories hand down."""
    name = "system.posix_acl_default" if number % 2 else "system.posix_acl_access"
    if number < 4:
        os.setxattr(place.path, name, acl(7 + number, number + 1), follow_symlinks=False)
    else:
        os.removexattr(place.path, name, follow_symlinks=False)


def flags(place: Place, number: int) -> None:
    os.close(place.open(os.O_RDONLY))
    inodes.add_flags(place.path, _FLAGS[number])


def no_flags(place: Place, number: int) -> None:
    os.close(place.open(os.O_RDONLY))
    inodes.set_flags(place.path, 0)


def project(place: Place, number: int) -> None:
    """Where the filesystem keeps such ids; a directory may hand its own down."""
    fd = place.open(os.O_RDONLY)
    is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
    os.close(fd)
    inodes.set_project(place.path, number)
    if is_directory and number % 2:
        inodes.add_flags(place.path, PROJINHERIT)


Action = Callable[[Place, int], None]


def _by_name(*actions: Action) -> dict[str, Action]:
    return {action.__name__: action for action in actions}


MAKING = _by_name(write, directory, deep, symlink, node, subvolume)
CHANGING = _by_name(remove, become, replace, remove_subvolume)
OF_FILES = _by_name(split, edit, truncate)
OF_DIRECTORIES = _by_name(read_only)
OF_INODES = _by_name(mode, owner, times, attribute, remove_attribute, access, flags, no_flags, project)
MOVING = {"rename": rename, "snapshot": snapshot}
ACTIONS = sorted([*MAKING, *CHANGING, *OF_FILES, *OF_DIRECTORIES, *OF_INODES, *MOVING, "link", "exchange"])


def _fallocate(fd: int, how: int, offset: int, length: int) -> None:
    _checked(_libc.fallocate(fd, how, offset, length))


def _checked(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
