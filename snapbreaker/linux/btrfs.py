"""btrfs subvolumes by ioctl(2): create, snapshot, delete, identify, list.

Structures and numbers: <linux/btrfs.h>, <linux/btrfs_tree.h>; behaviour: fs/btrfs/ioctl.c. Every function takes
descriptors that are open for reading (not O_PATH) and raises OSError with the path or name it was given.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable

from snapbreaker.dataclass import dataclass
from snapbreaker.linux.ioctl import io, ior, iow, iowr

ROOT_INODE = 256  # BTRFS_FIRST_FREE_OBJECTID: the inode of every subvolume's top directory
STUB_INODE = 2  # BTRFS_EMPTY_SUBVOL_DIR_OBJECTID: what a snapshot shows in place of a nested subvolume
TOP_LEVEL = 5  # BTRFS_FS_TREE_OBJECTID: the subvolume that holds all others

_MAGIC = 0x94
_NAME_MAX = 255
_READ_ONLY = 1 << 1  # BTRFS_SUBVOL_RDONLY, of SUBVOL_GETFLAGS and SNAP_CREATE_V2
_ROOT_READ_ONLY = 1 << 0  # BTRFS_ROOT_SUBVOL_RDONLY, of GET_SUBVOL_INFO

_VOL_ARGS = struct.Struct("=q4088s")  # btrfs_ioctl_vol_args: fd, name
_VOL_ARGS_V2 = struct.Struct("=qQQ4Q4040s")  # fd, transid, flags, unused, name
_FLAGS = struct.Struct("=Q")
# treeid, name, parent_id, dirid, generation, flags, three uuids, four transids, four (sec, nsec), reserved
_SUBVOL_INFO = struct.Struct("=Q256s4Q16s16s16s4Q" + "QI4x" * 4 + "64x")
_ROOTREF = struct.Struct("=Q4080sB7x")  # min_treeid, 255 pairs (treeid, dirid), number of pairs
_ROOTREF_PAIR = struct.Struct("=QQ")
_LOOKUP_USER = struct.Struct("=QQ256s3824s")  # dirid, treeid, name, path (with a slash at its end)

_LOOKUP = struct.Struct("=QQ4080s")  # treeid (0: that of the descriptor), objectid, name (with a slash at its end)

_SYNC = io(_MAGIC, 8)
_SNAP_DESTROY = iow(_MAGIC, 15, _VOL_ARGS.size)
_INO_LOOKUP = iowr(_MAGIC, 18, _LOOKUP.size)
_DEFAULT_SUBVOL = iow(_MAGIC, 19, 8)
_SNAP_CREATE_V2 = iow(_MAGIC, 23, _VOL_ARGS_V2.size)
_SUBVOL_CREATE_V2 = iow(_MAGIC, 24, _VOL_ARGS_V2.size)
_SUBVOL_GETFLAGS = ior(_MAGIC, 25, _FLAGS.size)
_SUBVOL_SETFLAGS = iow(_MAGIC, 26, _FLAGS.size)
_GET_SUBVOL_INFO = ior(_MAGIC, 60, _SUBVOL_INFO.size)  # Linux 4.18
_GET_SUBVOL_ROOTREF = iowr(_MAGIC, 61, _ROOTREF.size)  # Linux 4.18
_INO_LOOKUP_USER = iowr(_MAGIC, 62, _LOOKUP_USER.size)  # Linux 4.18

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Subvolume:
    """What BTRFS_IOC_GET_SUBVOL_INFO tells of one subvolume. ``parent`` is 0 for the top level.

    ``generation`` is that of the last change of anything in it (ctransid: making a snapshot of it is none),
    ``parent_uuid`` the snapshot's origin (all zeros: not a snapshot), ``made`` the generation that made it
    (otransid): its origin's later changes have a later one.
    """

    id: int
    parent: int
    generation: int
    read_only: bool
    uuid: str
    parent_uuid: str
    made: int


@dataclass(frozen=True, slots=True)
class Nested:
    """One subvolume that lies below a directory: ``path`` relative to that directory."""

    path: bytes
    id: int
    read_only: bool


def create_subvolume(parent_fd: int, name: bytes) -> None:
    """Make an empty, writable subvolume. It is on disk (the transaction committed) when this returns."""
    _ioctl(parent_fd, _SUBVOL_CREATE_V2, _VOL_ARGS_V2.pack(0, 0, 0, 0, 0, 0, 0, _name(name)), name)


def create_snapshot(source_fd: int, parent_fd: int, name: bytes, *, read_only: bool) -> None:
    """Snapshot the subvolume whose top directory is ``source_fd`` as ``name`` in ``parent_fd``.

    Both lie on one filesystem (else EXDEV). ETXTBSY: the subvolume holds an active swap file. Subvolumes nested
    in the source appear as empty stubs (``STUB_INODE``). On disk when this returns.
    """
    flags = _READ_ONLY if read_only else 0
    _ioctl(parent_fd, _SNAP_CREATE_V2, _VOL_ARGS_V2.pack(source_fd, 0, flags, 0, 0, 0, 0, _name(name)), name)


def delete_subvolume(parent_fd: int, name: bytes) -> None:
    """Delete a subvolume, read-only or not. ENOTEMPTY: others are nested in it; delete those first."""
    _ioctl(parent_fd, _SNAP_DESTROY, _VOL_ARGS.pack(0, _name(name)), name)


def set_default(fd: int, identity: int) -> None:
    """Have the subvolume mounted where none is named; ``fd`` is any directory of the filesystem."""
    fcntl.ioctl(fd, _DEFAULT_SUBVOL, struct.pack("=Q", identity))


def is_subvolume(fd: int) -> bool:
    """Whether ``fd`` is the top directory of a btrfs subvolume (the ioctl is refused for anything else)."""
    if os.fstat(fd).st_ino != ROOT_INODE:
        return False
    try:
        fcntl.ioctl(fd, _SUBVOL_GETFLAGS, bytes(_FLAGS.size))
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise
    return True


def is_read_only(fd: int) -> bool:
    """The read-only property of the subvolume whose top directory is ``fd``."""
    return bool(_flags(fd) & _READ_ONLY)


def set_read_only(fd: int, read_only: bool) -> None:
    """Set or clear the read-only property. EPERM: it was received by ``btrfs receive`` or is being sent."""
    flags = _flags(fd)
    wanted = flags | _READ_ONLY if read_only else flags & ~_READ_ONLY
    if wanted != flags:
        fcntl.ioctl(fd, _SUBVOL_SETFLAGS, _FLAGS.pack(wanted))


def subvolume_info(fd: int) -> Subvolume:
    """The subvolume that holds ``fd``, which may be any file or directory in it."""
    answer = bytearray(_SUBVOL_INFO.size)
    fcntl.ioctl(fd, _GET_SUBVOL_INFO, answer)
    fields = _SUBVOL_INFO.unpack(answer)
    identity, _, parent, _, _, flags, uuid, parent_uuid, _, changed, made = fields[:11]
    return Subvolume(identity, parent, changed, bool(flags & _ROOT_READ_ONLY), uuid.hex(), parent_uuid.hex(), made)


def path_in_subvolume(fd: int) -> bytes:
    """The path of the directory ``fd`` from the top of its subvolume, whatever is mounted where; needs root."""
    answer = bytearray(_LOOKUP.pack(0, os.fstat(fd).st_ino, b""))
    fcntl.ioctl(fd, _INO_LOOKUP, answer)
    path: bytes = _LOOKUP.unpack(answer)[2]
    return path.split(b"\0", 1)[0].rstrip(b"/")


def nested_subvolumes(fd: int, leave_out: Callable[[bytes], bool] = lambda path: False) -> list[Nested]:
    """All subvolumes below the directory ``fd``, a parent before those nested in it, without walking files.

    ``leave_out`` prunes: neither a path for which it is true nor anything nested in it is listed. A subvolume that
    is hidden because something else is mounted over it (or over a directory above it) is left out too.
    """
    found: list[Nested] = []
    queue = [(b"", os.dup(fd))]
    try:
        while queue:
            prefix, parent = queue.pop()
            try:
                for relative, identity in _children(parent):
                    path = prefix + relative
                    if leave_out(path):
                        continue
                    child = open_subvolume(parent, relative, identity)
                    if child is not None:
                        found.append(Nested(path, identity, is_read_only(child)))
                        queue.append((path + b"/", child))
            finally:
                os.close(parent)
    finally:
        for _, left in queue:
            os.close(left)
    return sorted(found, key=lambda nested: nested.path.split(b"/"))


def sync(fd: int) -> None:
    """Write everything of the filesystem to disk, also what delayed allocation holds back (BTRFS_IOC_SYNC)."""
    fcntl.ioctl(fd, _SYNC)


def _children(fd: int) -> list[tuple[bytes, int]]:
    """Path relative to ``fd`` and id of each subvolume directly nested in its subvolume and below ``fd``."""
    children = []
    for identity, directory in _root_references(fd):
        # A bytearray, since fcntl.ioctl takes and returns no more than 1,024 immutable bytes.
        answer = bytearray(_LOOKUP_USER.pack(directory, identity, b"", b""))
        try:
            fcntl.ioctl(fd, _INO_LOOKUP_USER, answer)
        except OSError as error:
            # EACCES: it does not lie below this directory. ENOENT: deleted meanwhile.
            if error.errno in (errno.EACCES, errno.ENOENT):
                continue
            raise
        _, _, name, path = _LOOKUP_USER.unpack(answer)
        children.append((path.split(b"\0", 1)[0] + name.split(b"\0", 1)[0], identity))
    return children


def _root_references(fd: int) -> list[tuple[int, int]]:
    """(subvolume id, inode of the directory that holds it) of each subvolume nested in the subvolume of ``fd``."""
    references: list[tuple[int, int]] = []
    minimum = 0
    while True:
        # The kernel says EOVERFLOW when more than 255 are left and has filled the buffer all the same.
        buffer = bytearray(_ROOTREF.pack(minimum, b"", 0))
        more = False
        try:
            fcntl.ioctl(fd, _GET_SUBVOL_ROOTREF, buffer)
        except OSError as error:
            if error.errno != errno.EOVERFLOW:
                raise
            more = True
        minimum, pairs, count = _ROOTREF.unpack(buffer)
        for index in range(count):
            references.append(_ROOTREF_PAIR.unpack_from(pairs, index * _ROOTREF_PAIR.size))
        if not more:
            return references


def open_subvolume(parent: int, relative: bytes, identity: int) -> int | None:
    """The subvolume at ``relative``, None when something else is seen there. No links, any length of path."""
    current = os.dup(parent)
    try:
        for name in relative.split(b"/"):
            following = os.open(name, _OPEN_DIRECTORY, dir_fd=current)
            os.close(current)
            current = following
        if is_subvolume(current) and subvolume_info(current).id == identity:
            return current
    except OSError as error:
        os.close(current)
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENOTTY):
            return None
        raise
    os.close(current)
    return None


def _flags(fd: int) -> int:
    flags: int = _FLAGS.unpack(fcntl.ioctl(fd, _SUBVOL_GETFLAGS, bytes(_FLAGS.size)))[0]
    return flags


def _name(name: bytes) -> bytes:
    if not 0 < len(name) <= _NAME_MAX or b"/" in name or b"\0" in name or name in (b".", b".."):
        raise OSError(errno.EINVAL, "not a name for a subvolume", name)
    return name


def _ioctl(fd: int, request: int, argument: bytes, name: bytes) -> None:
    try:
        fcntl.ioctl(fd, request, bytearray(argument))
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), name) from None
