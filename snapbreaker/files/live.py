"""A tree of files read from directories: the live machine, or a snapshot of it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping

from snapbreaker.files.bounds import Bounds, divide
from snapbreaker.files.content import plain_content
from snapbreaker.files.entry import Details, Entry
from snapbreaker.files.parents import Parents
from snapbreaker.files.policy import PathClass, Policy
from snapbreaker.files.tree import Content, Tree
from snapbreaker.files.view import View, entry_of
from snapbreaker.files.walk import DIRECTORY, NOT_THERE, Walk, open_quietly, sizes
from snapbreaker.guard.inodes import InodeSet
from snapbreaker.linux.btrfs import ROOT_INODE, is_read_only, is_subvolume
from snapbreaker.linux.filesystems import filesystem_type, folds_case
from snapbreaker.linux.inode import get_flags_and_project
from snapbreaker.linux.libc import failure
from snapbreaker.linux.openat import open_beneath
from snapbreaker.linux.xattr import read_xattrs, read_xattrs_at

# ZFS: zfs_setattr stamps what is asked of it only, and zpl_ioctl_setflags asks for no time (module/os/linux/zfs).
_QUIET = ("zfs",)
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class LiveTree(Tree):
    """The tree below the directory ``root``, seen through descriptors: no symbolic link is ever followed.

    Left out, with all below them: paths that ``policy`` keeps, the relative paths in ``skip`` (mount points: lstat
    would show the filesystem mounted there, so not even the directory has an entry, on any side of a comparison)
    and in ``excluded``, and ``vault_name`` at the root and at the root of each btrfs subvolume. A mount point that
    is not in ``skip`` is left out too and its path is added to ``mounts``: look there after a walk.

    ``subvolumes`` maps relative paths to descriptors of directories to read instead, which belong to the tree from
    then on: in a snapshot a nested subvolume is an empty stub. A stub that is not mapped is an empty directory
    without times or owner, since the kernel invents those. ``read_only`` are the paths of subvolumes that had that
    property when they were snapshotted; None: ask the subvolumes themselves. ``borrowed`` are, for each
    vault, the numbers of the inodes of which it has a link, which does not count. Access times stay as they are.
    """

    def __init__(
        self,
        root: str | bytes | int,
        policy: Policy | None = None,
        *,
        skip: Collection[bytes] = (),
        vault_name: bytes = b".snapbreaker",
        excluded: Collection[bytes] = (),
        subvolumes: Mapping[bytes, int] | None = None,
        read_only: Collection[bytes] | None = None,
        borrowed: Collection[InodeSet] = (),
    ) -> None:
        self.policy = policy or Policy()
        self._read_only = None if read_only is None else frozenset(read_only)
        self._parents = Parents(self._open_directory)
        kept = [path for path, path_class in self.policy.classes if path_class is PathClass.KEEP]
        if isinstance(root, int):
            self.root_fd = os.open(".", DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        else:
            self.root_fd = os.open(root, DIRECTORY | os.O_CLOEXEC)
        self._folds = folds_case(self.root_fd)
        self.quiet = filesystem_type(self.root_fd) in _QUIET
        self._view = View(
            [*skip, *excluded, *kept],
            vault_name,
            subvolumes or {},
            _on_btrfs(self.root_fd),
            borrowed,
        )

    @property
    def mounts(self) -> set[bytes]:
        """Mount points met so far that were not in ``skip``."""
        return self._view.mounts

    def learned(self) -> set[bytes]:
        return self.mounts

    def learn(self, learned: set[bytes]) -> None:
        self.mounts.update(learned)

    def vault_links(self, inode: int) -> int:
        """How many links vaults have of a file (see ``borrowed``)."""
        return self._view.vault_links(inode)

    def close(self) -> None:
        """Let go of all descriptors, those of ``subvolumes`` included."""
        self.forget()
        if self.root_fd >= 0:
            for fd in (*self._view.mapped.values(), self.root_fd):
                os.close(fd)
        self.root_fd = -1

    def walk(self, below: bytes = b"") -> Iterator[Entry]:
        """See ``Tree.walk``. A path that vanishes meanwhile is not there; other failures raise with the path."""
        self.forget()  # what was open may have been renamed since
        top = self.lookup(below)
        if top is not None:
            yield from Walk(self._view, lambda path: self._open(path, DIRECTORY), self.lookup).run(top)

    def parts(self, most: int) -> list[Bounds]:
        """The tree in up to ``most`` parts of about the same size, for ``walk_part``: one when it is small."""
        self.forget()
        return divide(sizes(self._view, lambda path: self._open(path, DIRECTORY)), most)

    def walk_part(self, bounds: Bounds) -> Iterator[Entry]:
        """That part of a walk."""
        self.forget()
        top = self.lookup(b"")
        if top is not None:
            yield from Walk(self._view, lambda path: self._open(path, DIRECTORY), self.lookup, bounds).run(top)

    def lookup(self, path: bytes) -> Entry | None:
        if self._is_left_out(path):
            return None
        if path in self._view.mapped:
            return self._view.mapped_entry(path)
        try:
            parent, name = self.open_parent(path)
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if self._folds and not self._is_spelled_so(path):
                return None
            if not path:
                return entry_of(path, status, self._view.btrfs and status.st_ino == ROOT_INODE)
            if not stat.S_ISDIR(status.st_mode):
                return self._view.own_links(entry_of(path, status))
            os.close(open_beneath(parent, name, os.O_PATH | os.O_NOFOLLOW, one_mount=True))
            return self._view.judged(entry_of(path, status), os.fstat(parent).st_dev)
        except OSError as error:
            if error.errno in NOT_THERE:
                return None
            error.filename = path
            raise

    def lookups(self, paths: Iterable[bytes]) -> Iterator[Entry | None]:
        """See ``Tree.lookups``."""
        view, parents = self._view, self._parents
        directory, shown, unread = b"", not view.leaves_out(b""), view.unread_in(b"", True)
        for path in paths:
            above, _, name = path.rpartition(b"/")
            if above != directory:
                directory, shown, unread = above, not self._is_left_out(above), view.unread_in(above, True)
            if not shown:
                yield None
                continue
            if not path or name in unread or self._folds:
                yield self.lookup(path)
                continue
            try:
                status = os.stat(name, dir_fd=parents.get(above), follow_symlinks=False)
            except OSError as error:
                if error.errno not in NOT_THERE:
                    error.filename = path
                    raise
                yield None
                continue
            is_directory = stat.S_ISDIR(status.st_mode)
            yield self.lookup(path) if is_directory else view.own_links(entry_of(path, status))

    def details(self, entry: Entry) -> Details:
        """See ``Tree.details``. ESTALE when the path has become another kind of file."""
        path, kind = entry.path, stat.S_IFMT(entry.mode)
        if self._view.is_stub(entry):
            return Details()
        if kind in (stat.S_IFREG, stat.S_IFDIR):
            fd = self.open_entry(entry)
            try:
                read_only = entry.subvolume and self._is_read_only(path, fd)
                return Details(*self._flags_and_project(fd), read_xattrs(fd), b"", read_only)
            except OSError as error:
                error.filename = path
                raise
            finally:
                os.close(fd)
        parent, name = self.open_parent(path)
        target = os.readlink(name, dir_fd=parent) if kind == stat.S_IFLNK else b""
        return Details(xattrs=read_xattrs_at(parent, name), target=target)

    def flags_and_project(self, entry: Entry) -> tuple[int, int]:
        fd = self.open_entry(entry)
        try:
            return self._flags_and_project(fd)
        except OSError as error:
            error.filename = entry.path
            raise
        finally:
            os.close(fd)

    def _flags_and_project(self, fd: int) -> tuple[int, int]:
        return get_flags_and_project(fd, projects=not self._view.btrfs)

    def _is_read_only(self, path: bytes, fd: int) -> bool:
        return is_read_only(fd) if self._read_only is None else path in self._read_only

    def content(self, entry: Entry) -> Content:
        """See ``Tree.content``. ESTALE when the path is no longer a regular file."""
        return plain_content(self._open(entry.path, _FILE), entry.path)

    def read(self, entry: Entry) -> tuple[Details, Content]:
        """See ``Tree.read``: one descriptor for both. ESTALE as ``content``."""
        content = self.content(entry)
        try:
            return Details(*self._flags_and_project(content.fd), read_xattrs(content.fd)), content
        except OSError as error:
            content.close()
            error.filename = entry.path
            raise

    def open_entry(self, entry: Entry) -> int:
        """A descriptor, for reading, of a regular file or directory; the caller closes it.

        ESTALE when the path has become another kind of file since ``entry`` was made.
        """
        if entry.is_dir:
            return self._open(entry.path, DIRECTORY)
        fd = self._open(entry.path, _FILE)
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
        if path in self._view.mapped:
            return self._view.mapped[path], b"."
        if not path:
            return self.root_fd, b"."
        directory, _, name = path.rpartition(b"/")
        return self._parents.get(directory), name

    def held(self) -> set[bytes]:
        """Paths that exist and are left out, mounts found by walks included: what is above one cannot be moved."""
        return self.mounts | {path for path in self._view.left_out if self._exists(path)}

    def forget(self) -> None:
        """Close the directories that ``open_parent`` keeps open."""
        self._parents.forget()

    def _open(self, path: bytes, flags: int) -> int:
        try:
            parent, name = self.open_parent(path)
            return open_quietly(parent, name, flags)
        except OSError as error:
            error.filename = path
            raise

    def _open_directory(self, path: bytes) -> int:
        base, relative = self.root_fd, path
        covering = [prefix for prefix in self._view.mapped if path == prefix or path.startswith(prefix + b"/")]
        if covering:
            nearest = max(covering, key=len)
            base, relative = self._view.mapped[nearest], path[len(nearest) + 1 :]
        return open_quietly(base, relative, DIRECTORY)

    def _is_spelled_so(self, path: bytes) -> bool:
        """Whether the names in ``path`` are those of the directories, where others would be found as well."""
        while path:
            parent, name = self.open_parent(path)
            if os.fsdecode(name) not in os.listdir(parent):
                return False
            path = path.rpartition(b"/")[0]
        return True

    def _is_left_out(self, path: bytes) -> bool:
        if self._view.leaves_out(path):
            return True
        return any(not directory or self._is_subvolume(directory) for directory in self._view.vault_among(path))

    def _exists(self, path: bytes) -> bool:
        try:
            parent, name = self.open_parent(path)
            os.stat(name, dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            if error.errno in NOT_THERE:
                return False
            raise
        return True

    def _is_subvolume(self, path: bytes) -> bool:
        entry = self.lookup(path)
        return entry is not None and entry.subvolume


def _on_btrfs(fd: int) -> bool:
    if is_subvolume(fd):
        return True
    try:
        is_read_only(fd)
    except OSError as error:
        # BTRFS_IOC_SUBVOL_GETFLAGS of a plain directory: EINVAL on btrfs (fs/btrfs/ioctl.c), ENOTTY elsewhere.
        return error.errno == errno.EINVAL
    return True
