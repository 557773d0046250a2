"""What differs between two trees: a merge of their walks, streaming."""

from __future__ import annotations

import errno
import stat
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from snapbreaker.errors import ContentLost
from snapbreaker.files.bounds import Bounds
from snapbreaker.files.content import not_shared, same_content, same_sparseness
from snapbreaker.files.entry import Aspect, Change, Details, Entry, sort_key
from snapbreaker.files.links import LinkGroups
from snapbreaker.files.policy import PathClass, Policy
from snapbreaker.files.proof import Proof
from snapbreaker.files.touched import Touched
from snapbreaker.files.tree import Content, Tree
from snapbreaker.parallel import how_many, in_parallel

__all__ = ["Proof", "diff"]

_CHANGED_MEANWHILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
_ATTEMPTS = 3

_Found = tuple[int, Details | None, Details | None]  # how a path differs, and its details on both sides
_NOTHING: _Found = (Aspect.NONE, None, None)


def diff(
    old: Tree,
    new: Tree,
    policy: Policy,
    proof: Proof,
    below: bytes = b"",
    *,
    touched: Collection[bytes] = (),
) -> Iterator[Change]:
    """Every path at and below ``below`` that differs, once each.

    Paths come in the order of a walk, except that those which are one of several hard links on either side come
    last, again in that order: their groups are known only at the end. A directory that was added or removed yields
    every path below it too; so does one that became something else (or the reverse), after a TYPE of its own.

    A touched file that has fewer links than it had differs in LINKS, also where the others lie outside the tree.

    An entry whose metadata proves it unchanged (``Proof``) is not looked at; ``touched`` paths
    and their parents always are. ctime, atime, inode and device numbers, and sizes and link counts of directories,
    never differ by themselves. Of keep-content files content, size and mtime are not compared and hard links not
    followed; of keep-content directories the mtime is not.

    Of a large tree parts are compared by several processes.
    ``new`` may change meanwhile: a path that vanishes is REMOVED. Raises OSError for anything else.
    """
    parts = [Bounds()] if below else old.parts(how_many())
    if len(parts) > 1:
        yield from _divided(old, new, policy, proof, touched, parts)
        return
    comparison = _Comparison(old, new, policy, proof, touched)
    yield from comparison.run(old.walk(below), new.walk(below))
    yield from comparison.groups.changes()


def _divided(
    old: Tree, new: Tree, policy: Policy, proof: Proof, touched: Collection[bytes], parts: Sequence[Bounds]
) -> Iterator[Change]:
    """By several processes, each of a part."""

    def compare(number: int) -> tuple[list[Change], LinkGroups, tuple[Any, Any]]:
        comparison = _Comparison(old, new, policy, proof, touched)
        found = comparison.run(old.walk_part(parts[number]), new.walk_part(parts[number]))
        return list(found), comparison.groups, (old.learned(), new.learned())

    groups = LinkGroups()
    for found, theirs, learned in in_parallel(len(parts), compare, again=True):
        yield from found
        groups.join(theirs)
        old.learn(learned[0])
        new.learn(learned[1])
    yield from groups.changes()


class _Comparison:
    """The work of ``diff``, on walks of the two trees or of a part of them. The paths that are one of several hard
    links are left in ``groups``.
    """

    def __init__(self, old: Tree, new: Tree, policy: Policy, proof: Proof, touched: Collection[bytes]) -> None:
        self._old, self._new = old, new
        held = proof if old.shares_numbers(new) else Proof.none()
        self._last_ctime, self._touched = held.last_ctime(), Touched(touched)
        self._policy = policy if any(c is PathClass.KEEP_CONTENT for _, c in policy.classes) else Policy()
        self.groups = LinkGroups()
        self._known: dict[tuple[int, ...], _Found] = {}

    def run(self, olds: Iterator[Entry], news: Iterator[Entry]) -> Iterator[Change]:
        last_ctime, touched, quiet = self._last_ctime, self._touched, self._new.quiet
        a, b = next(olds, None), next(news, None)
        while a is not None and b is not None:
            if a[0] == b[0]:
                # All but the device, which a snapshot has of its own. The read-only property of a subvolume is not
                # in its inode, so no ctime tells of it.
                same = a == b or a[1:10] == b[1:10]
                proven = same and a[6] <= last_ctime and not (a[11] or b[11])
                if not proven or (touched and touched.covers(a[0])) or (quiet and self._quietly_changed(a, b)):
                    yield from self._both(a, b)
                a, b = next(olds, None), next(news, None)
            elif sort_key(a[0]) < sort_key(b[0]):
                yield self._removed(a)
                a = next(olds, None)
            else:
                yield self._added(b)
                b = next(news, None)
        while a is not None:
            yield self._removed(a)
            a = next(olds, None)
        while b is not None:
            yield self._added(b)
            b = next(news, None)

    def _quietly_changed(self, a: Entry, b: Entry) -> bool:
        """Whether flags or project id differ; also where that cannot be told."""
        if not (b.is_file or b.is_dir):
            return False
        try:
            return self._old.flags_and_project(a) != self._new.flags_and_project(b)
        except OSError as error:
            if error.errno in _CHANGED_MEANWHILE:
                return True
            raise

    def _removed(self, entry: Entry) -> Change:
        if not self._keeps_content(entry.path):
            self.groups.note(entry, None)
        return Change(entry.path, entry, None, Aspect.REMOVED)

    def _added(self, entry: Entry) -> Change:
        if not self._keeps_content(entry.path):
            self.groups.note(None, entry)
        return Change(entry.path, None, entry, Aspect.ADDED)

    def _both(self, a: Entry, b: Entry) -> Iterator[Change]:
        kept = self._keeps_content(a.path)
        current, (aspects, was, now) = self._settled(a, b, kept)
        if current is None:
            yield self._removed(a)
            return
        if self._lost_link(a, current):
            aspects |= Aspect.LINKS
        linked = not kept and self.groups.note(a, current)
        change = Change(a.path, a, current, aspects, was, now)
        if linked and not aspects & Aspect.TYPE:
            self.groups.hold(change)
        elif aspects:
            yield change

    def _lost_link(self, a: Entry, b: Entry) -> bool:
        """Whether a touched file came back as one of its own, while another name of it lies outside the tree."""
        return bool(self._touched) and not a.is_dir and b.nlink < a.nlink and self._touched.covers(a.path)

    def _settled(self, a: Entry, b: Entry, kept: bool) -> tuple[Entry | None, _Found]:
        """How ``b`` differs from ``a``, read again when it changes while it is read; None when it vanished."""
        current: Entry | None = b
        for attempt in range(_ATTEMPTS):
            if current is None:
                break
            try:
                return current, self._found(a, current, kept)
            except _NewChanged as change:
                if attempt + 1 == _ATTEMPTS:
                    raise change.error from None
                current = self._new.lookup(b.path)
        return None, _NOTHING

    def _found(self, a: Entry, b: Entry, kept: bool) -> _Found:
        key = (a.dev, a.ino, b.dev, b.ino, kept)
        several = a.nlink > 1 and b.nlink > 1 and not a.is_dir
        if several and key in self._known:
            return self._known[key]
        found = self._compared(a, b, kept)
        if several:
            self._known[key] = found
        return found

    def _compared(self, a: Entry, b: Entry, kept: bool) -> _Found:
        if stat.S_IFMT(a.mode) != stat.S_IFMT(b.mode) or a.subvolume != b.subvolume:
            return Aspect.TYPE, None, None
        aspects = self._metadata(a, b)
        if a.is_file and a.size == b.size and a.size and not kept and not self._old.stands_for(a, b):
            content, was, now = self._read(a, b)
        else:
            content = Aspect.CONTENT if a.is_file and a.size != b.size and not kept else Aspect.NONE
            now = self._details_of_new(b)
            was = self._old.details(a)
        if kept and (a.is_file or a.is_dir):
            aspects &= ~Aspect.MTIME
        return aspects | content | self._details(was, now), was, now

    @staticmethod
    def _metadata(a: Entry, b: Entry) -> int:
        aspects = Aspect.NONE
        if a.mode != b.mode:
            aspects |= Aspect.MODE
        if a.uid != b.uid or a.gid != b.gid:
            aspects |= Aspect.OWNER
        if a.mtime_ns != b.mtime_ns:
            aspects |= Aspect.MTIME
        if a.rdev != b.rdev:
            aspects |= Aspect.DEVICE
        return aspects

    @staticmethod
    def _details(old: Details, new: Details) -> int:
        aspects = Aspect.NONE
        if old == new:
            return aspects
        if old.flags != new.flags or old.read_only != new.read_only:
            aspects |= Aspect.FLAGS
        if old.project != new.project:
            aspects |= Aspect.PROJECT
        if old.xattrs != new.xattrs:
            aspects |= Aspect.XATTRS
        if old.target != new.target:
            aspects |= Aspect.TARGET
        return aspects

    def _read(self, a: Entry, b: Entry) -> tuple[int, Details, Details]:
        """How two files of one size differ in their content, with their details."""
        try:
            now, new = self._new.read(b)
        except OSError as error:
            raise _judged(error) from None
        try:
            try:
                was, old = self._old.read(a)
            except ContentLost:
                return Aspect.CONTENT, self._old.details(a), now
            try:
                return _content(old, new), was, now
            finally:
                old.close()
        finally:
            new.close()

    def _details_of_new(self, entry: Entry) -> Details:
        try:
            return self._new.details(entry)
        except OSError as error:
            raise _judged(error) from None

    def _keeps_content(self, path: bytes) -> bool:
        return bool(self._policy.classes) and self._policy.of(path) is PathClass.KEEP_CONTENT


def _content(old: Content, new: Content) -> int:
    where = not_shared(old, new)
    if where == []:
        return Aspect.NONE
    if not same_content(old, new, where):
        return Aspect.CONTENT
    return Aspect.NONE if same_sparseness(old, new) else Aspect.SPARSE


class _NewChanged(Exception):
    """A path of the new tree is no longer what the walk saw."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _judged(error: OSError) -> Exception:
    return _NewChanged(error) if error.errno in _CHANGED_MEANWHILE else error
