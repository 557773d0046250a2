"""The tree that a command saw in its sandbox: what it wrote (the upper of an overlay) over the files that were
there (the lower).

What the kernel leaves in an upper is described in Documentation/filesystems/overlayfs.rst: a character device 0:0
is a *whiteout* and hides a name of the lower; a directory with the attribute ``overlay.opaque`` hides all that the
lower has in it; ``overlay.origin`` is on what was copied up from the lower before it was changed, but on no file
that had several names; ``overlay.protattr`` stands for the flags that would keep the kernel itself from writing.
"""

from __future__ import annotations

import errno
import heapq
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping

from snapbreaker.files.entry import Details, Entry, sort_key
from snapbreaker.files.live import LiveTree
from snapbreaker.files.tree import Content, Tree
from snapbreaker.linux.filesystems import filesystem_type
from snapbreaker.linux.handles import Handle
from snapbreaker.linux.inode import FLAG_APPEND, FLAG_IMMUTABLE
from snapbreaker.linux.overlay_origin import decode
from snapbreaker.linux.xattr import ACL_TWICE, Xattrs

# Of the attributes of an overlay that root has mounted, and of one with the option userxattr.
BY_ROOT, BY_OTHERS = b"trusted.overlay.", b"user.overlay."
ORIGIN = b"origin"  # the handle of the file in the lower from which it was copied up
TOP = b"snapbreaker.top"  # the same of the top of all, where the kernel notes none
_ESCAPED = b"overlay."  # an attribute of that name that the command itself has set comes after it
_PROTECTED = {ord("i"): FLAG_IMMUTABLE, ord("a"): FLAG_APPEND}
# Flags that a file takes along when it is copied up; all others an upper does not know: fs/overlayfs/overlayfs.h,
# OVL_COPY_FS_FLAGS_MASK and OVL_PROT_FS_FLAGS_MASK. FS_SYNC_FL, FS_NOATIME_FL of <linux/fs.h>.
_TAKEN_ALONG = 0x8 | 0x80 | FLAG_IMMUTABLE | FLAG_APPEND
# An inode of the upper must never pass for one of the lower's.
_OF_UPPER = 1 << 63


class Merged(Tree):
    """``upper``, which does not change, over ``lower``, the live tree; both stay their owner's to close.

    ``user_attributes`` false: the upper's filesystem has none, so those of the lower are shown. ``prefix`` begins
    the names of the overlay's own attributes.

    A file whose names lie in several subvolumes of the lower, which can have no link in common, is shown as one in
    each; ``crossed`` are its names.
    """

    def __init__(
        self, upper: LiveTree, lower: LiveTree, *, user_attributes: bool = True, prefix: bytes = BY_ROOT
    ) -> None:
        self._upper, self._lower = upper, lower
        self._user_attributes, self._prefix = user_attributes, prefix
        self.whiteouts: set[bytes] = set()
        self.copied: set[bytes] = set()  # what has a counterpart in the lower that it was made from
        self.merged: set[bytes] = set()  # directories in which the lower is seen too
        self.origins: dict[bytes, Handle | None] = {}  # handles of ``merged``; None: not known
        self.crossed: list[bytes] = []
        self._acls_twice = filesystem_type(lower.root_fd) == "xfs"  # the second name is copied up, and stays
        self._shown: dict[bytes, Entry] = {}
        self._details: dict[bytes, Details] = {}
        self._through: dict[bytes, bool] = {}
        self._devices: dict[bytes, int] = {}  # of the directories of the upper: the one to which they will belong
        for entry in upper.walk():
            self._add(entry)
        self._part_crossed()
        self._hidden_links: dict[tuple[int, int], int] = {}
        self._linked: set[bytes] = set()
        self._kept: dict[bytes, Entry] = {}  # directories of the lower as they were
        self._find_links()

    def _add(self, entry: Entry) -> None:
        path = entry.path
        if stat.S_ISCHR(entry.mode) and not entry.rdev:
            self.whiteouts.add(path)
            return
        above = path.rpartition(b"/")[0]
        if not path or above in self.merged:
            plain = entry.is_dir or entry.is_file
            attributes = _overlay_attributes(self._own(entry).xattrs, self._prefix) if plain else {}
            if ORIGIN in attributes:
                self.copied.add(path)
            below = self._lower.lookup(path) if entry.is_dir else None
            if below is not None and below.is_dir and attributes.get(b"opaque") != b"y":
                self._add_merged(entry, below, attributes)
                return
        device = self._devices[above]
        if entry.is_dir:
            self._devices[path] = device
        self._shown[path] = entry._replace(ino=entry.ino | _OF_UPPER, dev=device)

    def _add_merged(self, entry: Entry, below: Entry, attributes: Mapping[bytes, bytes]) -> None:
        path = entry.path
        self.merged.add(path)
        self.copied.add(path)
        self.origins[path] = decode(attributes.get(ORIGIN if path else TOP, b""))
        self._devices[path] = below.dev
        self._shown[path] = entry._replace(ino=below.ino, dev=below.dev, subvolume=below.subvolume)

    def _part_crossed(self) -> None:
        """The upper is one filesystem, the lower may be several subvolumes: a link across them stays none."""
        if len(set(self._devices.values())) == 1:
            return
        groups: dict[int, dict[int, list[Entry]]] = {}
        for entry in self._shown.values():
            if entry.nlink > 1 and not entry.is_dir:
                groups.setdefault(entry.ino, {}).setdefault(entry.dev, []).append(entry)
        for group in groups.values():
            for names in group.values() if len(group) > 1 else ():
                for entry in names:
                    self._shown[entry.path] = entry._replace(nlink=len(names))
                    self.crossed.append(entry.path)

    @property
    def paths(self) -> list[bytes]:
        """Everything that the upper says something of, in the order of a walk."""
        return sorted({*self._shown, *self.whiteouts}, key=sort_key)

    # A file of the lower has one link less for each of its names that the upper hides.

    def _find_links(self) -> None:
        several = {
            _inode(entry)
            for _, entry in self.hidden()
            if entry is not None and entry.nlink > 1 and not entry.is_dir
        }
        if not several:
            return
        for entry in self._lower.walk():
            if not entry.is_dir and _inode(entry) in several:
                self._linked.add(entry.path)
                if not self._is_lower(entry.path):
                    self._hidden_links[_inode(entry)] = self._hidden_links.get(_inode(entry), 0) + 1
        # A name in one may be replaced although it is none of the upper: then the lower shows another mtime.
        for path in {path.rpartition(b"/")[0] for path in self._linked}:
            if self._is_lower(path) and (directory := self._lower.lookup(path)) is not None:
                self._kept[path] = directory

    def hidden(self) -> Iterator[tuple[bytes, Entry | None]]:
        """What the lower has now at each path that the upper removes or replaces, with all below it."""
        paths = [path for path in self.paths if path not in self.merged and self._above_is_merged(path)]
        for path, entry in zip(paths, list(self._lower.lookups(paths)), strict=True):
            yield path, entry
            if entry is not None and entry.is_dir:
                yield from ((inner.path, inner) for inner in self._lower.walk(path) if inner.path != path)

    @property
    def parted(self) -> list[bytes]:
        """Files that had other names, were changed in place, and so are files of their own now."""
        return [
            path
            for path, entry in self._shown.items()
            if path in self._linked and entry.is_file and entry.nlink == 1
        ]

    def _lowered(self, entry: Entry) -> Entry:
        hidden = self._hidden_links.get(_inode(entry), 0) if self._hidden_links else 0
        return entry._replace(nlink=entry.nlink - hidden) if hidden and not entry.is_dir else entry

    # What is seen.

    def candidates(self, live: Tree) -> Collection[bytes]:
        """The paths of the upper, and other names of files of which it hides one."""
        return {*self._shown, *self.whiteouts, *self._linked}

    def walk(self, below: bytes = b"") -> Iterator[Entry]:
        top = self.lookup(below)
        if top is None:
            return
        inside = below + b"/" if below else b""
        own = [entry for path, entry in self._shown.items() if path == below or path.startswith(inside)]
        own.sort(key=_key)
        if not (below in self.merged or self._is_lower(below)):
            yield from own
            return
        theirs = (self._lowered(entry) for entry in self._lower.walk(below) if self._is_lower(entry.path))
        yield from heapq.merge(own, theirs, key=_key)

    def lookup(self, path: bytes) -> Entry | None:
        if (entry := self._shown.get(path) or self._kept.get(path)) is not None:
            return entry
        found = self._lower.lookup(path) if self._is_lower(path) else None
        return None if found is None else self._lowered(found)

    def lookups(self, paths: Iterable[bytes]) -> Iterator[Entry | None]:
        return map(self.lookup, paths)

    def details(self, entry: Entry) -> Details:
        if entry.path not in self._shown:
            return self._lower.details(entry)
        own = self._own(entry)
        flags = own.flags
        for letter in _overlay_attributes(own.xattrs, self._prefix).get(b"protattr", b""):
            flags |= _PROTECTED.get(letter, 0)
        xattrs, project = _cleaned(own.xattrs, self._prefix), own.project
        if self._acls_twice:
            xattrs = tuple(one for one in xattrs if one[0] not in ACL_TWICE)
        below = self._lower.lookup(entry.path) if entry.path in self.copied else None
        if below is not None and stat.S_IFMT(below.mode) == stat.S_IFMT(entry.mode):
            was = self._lower.details(below)
            flags |= was.flags & ~_TAKEN_ALONG
            project, own = project or was.project, own._replace(read_only=was.read_only)
            if not self._user_attributes:
                xattrs = tuple(sorted({**_of_users(was.xattrs), **dict(xattrs)}.items()))
        return own._replace(flags=flags, project=project, xattrs=xattrs)

    def _own(self, entry: Entry) -> Details:
        """What the upper itself has, read once: it does not change."""
        own = self._details.get(entry.path)
        if own is None:
            # To the upper it is a plain directory.
            own = self._details[entry.path] = self._upper.details(entry._replace(subvolume=False))
        return own

    def content(self, entry: Entry) -> Content:
        return (self._upper if entry.path in self._shown else self._lower).content(entry)

    def _is_lower(self, path: bytes) -> bool:
        """Whether it is the lower's own that is seen at ``path``, if it has something there."""
        return path not in self._shown and path not in self.whiteouts and self._above_is_merged(path)

    def _above_is_merged(self, path: bytes) -> bool:
        if not path:
            return True
        above = path.rpartition(b"/")[0]
        known = self._through.get(above)
        if known is None:
            if above in self._shown:
                known = above in self.merged
            else:
                known = above not in self.whiteouts and self._above_is_merged(above)
            self._through[above] = known
        return known


def _overlay_attributes(xattrs: Xattrs, prefix: bytes) -> dict[bytes, bytes]:
    """The overlay's own, without their prefix. With the other prefix they are those of another overlay's upper."""
    return {
        name[len(prefix) :]: value
        for name, value in xattrs
        if name.startswith(prefix) and not name.startswith(prefix + _ESCAPED)
    }


def _cleaned(xattrs: Xattrs, prefix: bytes) -> Xattrs:
    """All others."""
    found = []
    for name, value in xattrs:
        if not name.startswith(prefix):
            found.append((name, value))
        elif name.startswith(prefix + _ESCAPED):
            found.append((prefix + name[len(prefix + _ESCAPED) :], value))
    return tuple(sorted(found))


def can_hold_user_attributes(directory: int) -> bool:
    """Whether the filesystem of the open ``directory`` has them: tmpfs since Linux 6.6."""
    try:
        os.getxattr(directory, b"user.snapbreaker")
    except OSError as error:
        return error.errno == errno.ENODATA
    return True


def _of_users(xattrs: Xattrs) -> dict[bytes, bytes]:
    return {name: value for name, value in xattrs if name.startswith(b"user.")}


def _inode(entry: Entry) -> tuple[int, int]:
    return entry.dev, entry.ino


def _key(entry: Entry) -> bytes:
    return sort_key(entry.path)
