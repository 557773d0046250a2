"""A tree of files read from directories: the live machine, or a snapshot of it."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping

from snapbreaker.files.content import plain_content
from snapbreaker.files.entry import Details, Entry
from snapbreaker.files.parents import Parents
from snapbreaker.files.policy import PathClass, Policy
from snapbreaker.files.tree import Content, Tree
from snapbreaker.linux.btrfs import ROOT_INODE, STUB_INODE, is_read_only, is_subvolume
from snapbreaker.linux.inode import get_flags, get_project
from snapbreaker.linux.libc import failure
from snapbreaker.linux.openat import open_beneath
from snapbreaker.linux.xattr import read_xattrs, read_xattrs_at

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_ENCODING = sys.getfilesystemencoding()
# A walk keeps this many directories open; in a deeper tree the upper ones are closed and opened again.
_OPEN_FRAMES = 64

_new = tuple.__new__


class _Frame:
    """One directory of a walk: its descriptor (-1 when it is closed) and the entries still to come."""

    __slots__ = ("entries", "fd", "path")

    def __init__(self, path: bytes, fd: int, entries: Iterator[Entry]) -> None:
        self.path, self.fd, self.entries = path, fd, entries


class LiveTree(Tree):
    """The tree below the directory ``root``, seen through descriptors: no symbolic link is ever followed.

    Left out, with all below them: paths that ``policy`` keeps, the relative paths in ``skip`` (mount points: lstat
    would show the filesystem mounted there, so not even the directory has an entry, on any side of a comparison)
    and in ``excluded``, and ``vault_name`` at the root and at the root of each btrfs subvolume. A mount point that
    is not in ``skip`` is left out too and its path is added to ``mounts``: look there after a walk.

    ``subvolumes`` maps relative paths to descriptors of directories to read instead, which belong to the tree from
    then on: in a snapshot a nested subvolume is an empty stub. A stub that is not mapped is an empty directory
    without times or owner, since the kernel invents those. ``read_only`` are the paths of subvolumes that had that
    property when they were snapshotted; None: ask the subvolumes themselves. Access times stay as they are.
    """

    def __init__(
        self,
        root: str | bytes,
        policy: Policy | None = None,
        *,
        skip: Collection[bytes] = (),
        vault_name: bytes = b".snapbreaker",
        excluded: Collection[bytes] = (),
        subvolumes: Mapping[bytes, int] | None = None,
        read_only: Collection[bytes] | None = None,
    ) -> None:
        self.policy = policy or Policy()
        self.mounts: set[bytes] = set()
        self._vault_name = vault_name
        self._read_only = None if read_only is None else frozenset(read_only)
        self._mapped = dict(subvolumes or {})
        kept = [path for path, path_class in self.policy.classes if path_class is PathClass.KEEP]
        self._left_out = _by_directory([*skip, *excluded, *kept])
        self._mapped_in = {
            directory: names - self._left_out.get(directory, _NOTHING)
            for directory, names in _by_directory(self._mapped).items()
        }
        self._parents = Parents(self._open_directory)
        self.root_fd = os.open(root, _DIRECTORY | os.O_CLOEXEC)
        self._btrfs = is_subvolume(self.root_fd) or self._has_subvolume_above()

    def close(self) -> None:
        """Let go of all descriptors, those of ``subvolumes`` included."""
        self._parents.forget()
        for fd in (*self._mapped.values(), self.root_fd):
            if fd >= 0:
                os.close(fd)
        self._mapped, self.root_fd = {}, -1

    # The walk.

    def walk(self, below: bytes = b"") -> Iterator[Entry]:
        """See ``Tree.walk``. A path that vanishes meanwhile is not there; other failures raise with the path."""
        self.forget()  # what was open may have been renamed since
        top = self.lookup(below)
        if top is None:
            return
        if not top.is_dir:
            yield top
            return
        try:
            fd = self._open(below, _DIRECTORY)
        except FileNotFoundError:
            return
        yield top
        stack = [_Frame(below, fd, iter(self._read(fd, top)))]
        try:
            yield from self._descend(stack)
        finally:
            for frame in stack:
                if frame.fd >= 0:
                    os.close(frame.fd)

    def _descend(self, stack: list[_Frame]) -> Iterator[Entry]:
        while stack:
            frame = stack[-1]
            for entry in frame.entries:
                if entry[1] & 0o170000 != 0o040000:
                    yield entry
                    continue
                fd = self._enter(frame, entry)
                while fd < 0:
                    current = self.lookup(entry.path)
                    if current is None or not current.is_dir:
                        break
                    entry, fd = current, self._enter(frame, current)
                if fd < 0:
                    if current is not None:
                        yield current
                    continue
                yield entry
                stack.append(_Frame(entry[0], fd, iter(self._read(fd, entry))))
                if len(stack) > _OPEN_FRAMES and stack[-_OPEN_FRAMES].fd >= 0:
                    os.close(stack[-_OPEN_FRAMES].fd)
                    stack[-_OPEN_FRAMES].fd = -1
                break
            else:
                stack.pop()
                if frame.fd >= 0:
                    os.close(frame.fd)

    def _enter(self, frame: _Frame, entry: Entry) -> int:
        """A descriptor of the directory ``entry``, or -1 when it is no longer one or is a mount point."""
        path = entry.path
        if path in self._mapped:
            return self._open(path, _DIRECTORY)
        try:
            if frame.fd < 0:
                frame.fd = self._open(frame.path, _DIRECTORY)
            return _open_quietly(frame.fd, path.rpartition(b"/")[2], _DIRECTORY)
        except OSError as error:
            if error.errno == errno.EXDEV:
                self.mounts.add(path)
            if error.errno in _NOT_THERE:
                return -1
            error.filename = path
            raise

    def _read(self, fd: int, directory: Entry) -> list[Entry]:
        """The entries of one directory, sorted. This is the loop that decides how fast a walk is."""
        path = directory[0]
        prefix = path + b"/" if path else b""
        left_out = self._names_left_out(path, directory[11])
        own_device = os.fstat(fd).st_dev
        entries = []
        with os.scandir(fd) as names:
            for item in names:
                name = item.name.encode(_ENCODING, "surrogateescape")
                if name in left_out:
                    continue
                try:
                    status = item.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    error.filename = prefix + name
                    raise
                mode, ino, dev, nlink, uid, gid, size = status[:7]
                fields = (
                    prefix + name,
                    mode,
                    uid,
                    gid,
                    size,
                    status.st_mtime_ns,
                    status.st_ctime_ns,
                    ino,
                    nlink,
                    status.st_rdev,
                    dev,
                    False,
                )
                entry: Entry = _new(Entry, fields)
                if (dev != own_device or ino <= ROOT_INODE) and mode & 0o170000 == 0o040000:
                    special = self._special(entry, own_device)
                    if special is None:
                        continue
                    entry = special
                entries.append(entry)
        entries += [self._mapped_entry(prefix + name) for name in self._mapped_in.get(path, _NOTHING)]
        entries.sort(key=_path)
        return entries

    def _names_left_out(self, path: bytes, subvolume: bool) -> frozenset[bytes]:
        left_out = self._left_out.get(path, _NOTHING) | self._mapped_in.get(path, _NOTHING)
        return left_out | {self._vault_name} if subvolume or not path else left_out

    def _special(self, entry: Entry, parent_device: int) -> Entry | None:
        """A directory that may be a subvolume, a stub of one, or a mount point (None)."""
        if self._btrfs and entry.ino == STUB_INODE:
            return Entry(entry.path, stat.S_IFDIR | 0o755, 0, 0, 0, 0, 0, STUB_INODE, 1, 0, entry.dev)
        if entry.dev == parent_device:
            return entry
        if self._btrfs and entry.ino == ROOT_INODE:
            return entry._replace(subvolume=True)
        self.mounts.add(entry.path)
        return None

    def _mapped_entry(self, path: bytes) -> Entry:
        status = os.fstat(self._mapped[path])
        return _entry(path, status, status.st_ino == ROOT_INODE)

    # Single paths.

    def lookup(self, path: bytes) -> Entry | None:
        if self._is_left_out(path):
            return None
        if path in self._mapped:
            return self._mapped_entry(path)
        try:
            parent, name = self.open_parent(path)
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not path:
                return _entry(path, status, self._btrfs and status.st_ino == ROOT_INODE)
            if not stat.S_ISDIR(status.st_mode):
                return _entry(path, status)
            os.close(open_beneath(parent, name, os.O_PATH | os.O_NOFOLLOW, one_mount=True))
            return self._special(_entry(path, status), os.fstat(parent).st_dev)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            error.filename = path
            raise

    def details(self, entry: Entry) -> Details:
        """See ``Tree.details``. ESTALE when the path has become another kind of file."""
        path, kind = entry.path, stat.S_IFMT(entry.mode)
        if self._btrfs and entry.ino == STUB_INODE:
            return Details()
        if kind in (stat.S_IFREG, stat.S_IFDIR):
            fd = self.open_entry(entry)
            try:
                read_only = entry.subvolume and self._is_read_only(path, fd)
                return Details(get_flags(fd), get_project(fd), read_xattrs(fd), b"", read_only)
            except OSError as error:
                error.filename = path
                raise
            finally:
                os.close(fd)
        parent, name = self.open_parent(path)
        target = os.readlink(name, dir_fd=parent) if kind == stat.S_IFLNK else b""
        return Details(xattrs=read_xattrs_at(parent, name), target=target)

    def _is_read_only(self, path: bytes, fd: int) -> bool:
        return is_read_only(fd) if self._read_only is None else path in self._read_only

    def content(self, entry: Entry) -> Content:
        """See ``Tree.content``. ESTALE when the path is no longer a regular file."""
        fd = self.open_entry(entry)
        try:
            return plain_content(fd)
        except BaseException:
            os.close(fd)
            raise

    def open_entry(self, entry: Entry) -> int:
        """A descriptor, for reading, of a regular file or directory; the caller closes it.

        ESTALE when the path has become another kind of file since ``entry`` was made.
        """
        fd = self._open(entry.path, _DIRECTORY if entry.is_dir else _FILE)
        if stat.S_IFMT(os.fstat(fd).st_mode) != stat.S_IFMT(entry.mode):
            os.close(fd)
            raise failure("open", entry.path, errno.ESTALE)
        return fd

    def open_parent(self, path: bytes) -> tuple[int, bytes]:
        """A directory's descriptor and the name by which it holds ``path``; the root is ``.`` in itself.

        The descriptor (O_RDONLY) belongs to the tree and stays open until 32 other directories were asked for or
        a walk begins. After directories were renamed or replaced call ``forget``. No symbolic link and no mount
        is passed.
        """
        if path in self._mapped:
            return self._mapped[path], b"."
        if not path:
            return self.root_fd, b"."
        directory, _, name = path.rpartition(b"/")
        return self._parents.get(directory), name

    def held(self) -> set[bytes]:
        """Paths that exist and are left out, mounts found by walks included: what is above one cannot be moved."""
        found = set(self.mounts)
        for directory, names in self._left_out.items():
            for name in names:
                path = directory + b"/" + name if directory else name
                try:
                    parent, last = self.open_parent(path)
                    os.stat(last, dir_fd=parent, follow_symlinks=False)
                except OSError as error:
                    if error.errno in _NOT_THERE:
                        continue
                    raise
                found.add(path)
        return found

    def forget(self) -> None:
        """Close the directories that ``open_parent`` keeps open."""
        self._parents.forget()

    def _open(self, path: bytes, flags: int) -> int:
        try:
            parent, name = self.open_parent(path)
            return _open_quietly(parent, name, flags)
        except OSError as error:
            error.filename = path
            raise

    def _open_directory(self, path: bytes) -> int:
        base, relative = self.root_fd, path
        covering = [prefix for prefix in self._mapped if path == prefix or path.startswith(prefix + b"/")]
        if covering:
            nearest = max(covering, key=len)
            base, relative = self._mapped[nearest], path[len(nearest) + 1 :]
        return _open_quietly(base, relative, _DIRECTORY)

    def _is_left_out(self, path: bytes) -> bool:
        if b"" in self._left_out.get(b"", ()):
            return True
        directory = b""
        for name in path.split(b"/") if path else ():
            if name in self._left_out.get(directory, ()):
                return True
            if name == self._vault_name and (not directory or self._is_subvolume(directory)):
                return True
            directory = directory + b"/" + name if directory else name
        return False

    def _is_subvolume(self, path: bytes) -> bool:
        entry = self.lookup(path)
        return entry is not None and entry.subvolume

    def _has_subvolume_above(self) -> bool:
        """Whether the root, not the top of a subvolume itself, lies on btrfs."""
        try:
            is_read_only(self.root_fd)
        except OSError as error:
            # BTRFS_IOC_SUBVOL_GETFLAGS of a plain directory: EINVAL on btrfs (fs/btrfs/ioctl.c), ENOTTY elsewhere.
            return error.errno == errno.EINVAL
        return True


_NOTHING: frozenset[bytes] = frozenset()
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV})


def _path(entry: Entry) -> bytes:
    return entry[0]


def _entry(path: bytes, status: os.stat_result, subvolume: bool = False) -> Entry:
    return Entry(
        path,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        status.st_nlink,
        status.st_rdev,
        status.st_dev,
        subvolume,
    )


def _by_directory(paths: Iterable[bytes]) -> dict[bytes, frozenset[bytes]]:
    """The names of ``paths`` for each directory that holds some."""
    names: dict[bytes, frozenset[bytes]] = {}
    for path in paths:
        directory, _, name = path.rpartition(b"/")
        names[directory] = names.get(directory, _NOTHING) | {name}
    return names


def _open_quietly(dir_fd: int, path: bytes, flags: int) -> int:
    """Open without touching the access time; O_NOATIME is allowed to the owner and to CAP_FOWNER only."""
    try:
        return open_beneath(dir_fd, path, flags | os.O_NOATIME, one_mount=True)
    except PermissionError:
        return open_beneath(dir_fd, path, flags, one_mount=True)
