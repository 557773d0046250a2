"""What a restore will do, in order, before anything is touched.

Every changed path becomes one step. What has to go, goes into a slot; a directory takes all below it along.
What has to come is staged in a slot and put in place. A file of which only the metadata differs is changed where
it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import field
from enum import Enum, auto
from functools import partial
from typing import Protocol, runtime_checkable

from snapbreaker.dataclass import dataclass
from snapbreaker.files.entry import Aspect, Change, Details, Entry, sort_key
from snapbreaker.files.tree import Tree
from snapbreaker.linux.inode import FLAG_NOCOW

# What a file cannot get without being made anew.
_ANEW = Aspect.TYPE | Aspect.CONTENT | Aspect.SPARSE | Aspect.TARGET | Aspect.DEVICE | Aspect.REMOVED

_NO_DETAILS = Details()

Inode = tuple[int, int]


@runtime_checkable
class Subvolumes(Protocol):
    """A tree that can show a whole btrfs subvolume as it was."""

    def subvolume_fd(self, path: bytes) -> int | None:
        """The top directory of a read-only snapshot of the subvolume at ``path``; the caller closes it."""


class Action(Enum):
    DISPLACE = auto()  # was not there: into a slot
    PLACE = auto()  # staged, then put in place
    LINK = auto()  # another name of the file of ``base``
    METADATA = auto()  # changed in place


@dataclass(slots=True)
class Step:
    """One path. ``details`` are what it shall have, ``was`` what it has (METADATA only).

    ``number`` is the slot (0: none), ``domain`` the subvolume that the slot lies in (see ``Stage``). ``inode`` is
    that of what is staged, or of what is changed in place: nothing else is touched under this path.
    """

    action: Action
    change: Change
    details: Details = _NO_DETAILS
    was: Details = _NO_DETAILS
    base: Step | None = None
    snapshot: bool = False
    domain: int = 0
    number: int = 0
    inode: int = 0
    failure: str = ""

    @property
    def path(self) -> bytes:
        return self.change.path

    @property
    def old(self) -> Entry:
        assert self.change.old is not None
        return self.change.old

    @property
    def name(self) -> bytes:
        return b"%d" % self.number


@dataclass(slots=True)
class Plan:
    """Steps in the order of ``sort_key``, and why some paths have none."""

    steps: list[Step] = field(default_factory=list)
    failures: dict[bytes, str] = field(default_factory=dict)
    by_path: dict[bytes, Step] = field(default_factory=dict)


def make_plan(old: Tree, live: Tree, changes: Iterable[Change], held: Iterable[bytes] = ()) -> Plan:
    """Plan how ``changes`` are undone. ``held`` are paths in the live tree that must not be moved (kept, mounts).

    Reads the details of both trees; a path whose details cannot be read becomes a failure.
    """
    ordered = sorted(changes, key=lambda change: sort_key(change.path))
    plan = Plan()
    above_held = {above for path in held for above in _above(path)}
    needed = list(_needed(ordered, old, above_held, plan.failures))
    serving = _serving(ordered)
    bases: dict[Inode, Step] = {}
    # Files that stay where they are come first: other names of theirs are linked to them.
    for change in needed:
        _add(plan, change, partial(_in_place, change, old, live, serving))
        if (step := plan.by_path.get(change.path)) is not None and not step.old.is_dir:
            bases.setdefault(_inode(step.old), step)
    for change in needed:
        if change.path not in plan.by_path and change.path not in plan.failures:
            _add(plan, change, partial(_anew, change, old, bases))
    plan.steps = [plan.by_path[change.path] for change in needed if change.path in plan.by_path]
    return plan


def _add(plan: Plan, change: Change, make: Callable[[], Step | None]) -> None:
    try:
        step = make()
    except OSError as error:
        plan.failures[change.path] = f"cannot be read: {error.strerror}"
        return
    if step is not None:
        plan.by_path[change.path] = step


def _in_place(change: Change, old: Tree, live: Tree, serving: dict[Inode, Inode]) -> Step | None:
    """The step for a path whose inode can stay, or None."""
    was, now = change.old, change.new
    if was is None or now is None or change.aspects & _ANEW or not (was.is_dir or was.is_file):
        return None
    if was.is_file and _inode(was) != _inode(now) and old.holds_inode(now):
        return None  # with another one's metadata it could no longer prove what it held itself
    if change.aspects & Aspect.LINKS and serving.get(_inode(was)) != _inode(now):
        return None
    details, present = change.was or old.details(was), change.now or live.details(now)
    if was.is_file and (present.flags ^ details.flags) & FLAG_NOCOW:
        return None
    return Step(Action.METADATA, change, details, present, inode=now.ino)


def _anew(change: Change, old: Tree, bases: dict[Inode, Step]) -> Step:
    entry = change.old
    if entry is None:
        return Step(Action.DISPLACE, change)
    details = change.was or old.details(entry)
    if entry.is_dir:
        return Step(Action.PLACE, change, details, snapshot=_has_snapshot(old, entry))
    if entry.nlink == 1:
        return Step(Action.PLACE, change, details)
    base = bases.get(_inode(entry))
    if base is not None:
        return Step(Action.LINK, change, details, base=base)
    return bases.setdefault(_inode(entry), Step(Action.PLACE, change, details))


def _serving(changes: Collection[Change]) -> dict[Inode, Inode]:
    """For each group of hard links in the old tree the live inode that can go on serving it, where there is one.

    It must hold what the old one held, and every live name of it must belong to the group: a name that is going
    to be displaced would share the inode with a file in use.
    """
    groups: dict[Inode, list[Change]] = {
        _inode(change.old): []
        for change in changes
        if change.old is not None and change.aspects & Aspect.LINKS and not change.old.is_dir
    }
    if not groups:
        return {}
    names: dict[Inode, set[bytes]] = {}
    for change in changes:
        if change.old is not None and (members := groups.get(_inode(change.old))) is not None:
            members.append(change)
        if change.new is not None:
            names.setdefault(_inode(change.new), set()).add(change.path)
    serving = {}
    for inode, members in groups.items():
        paths = {member.path for member in members}
        for member in members:
            if member.new is None or member.aspects & _ANEW:
                continue
            if names[_inode(member.new)] <= paths:
                serving[inode] = _inode(member.new)
                break
    return serving


def _needed(
    changes: list[Change], old: Tree, above_held: set[bytes], blocked: dict[bytes, str]
) -> Iterator[Change]:
    """The changes that need a step of their own: not what goes or comes along with a directory above."""
    gone = b""  # a displaced directory, with its slash: what is new below it goes along
    rebuilt = b""  # a directory whose whole old content is listed anew, with its slash
    snapshots: list[tuple[bytes, bool]] = []  # restored subvolumes around, and whether their files come along
    for change in changes:
        path = change.path
        if rebuilt and path.startswith(rebuilt):
            continue
        if gone and path.startswith(gone) and change.old is None:
            continue
        leaves_directory = change.new is not None and change.new.is_dir
        leaves_directory = leaves_directory and bool(change.old is None or change.aspects & Aspect.TYPE)
        if leaves_directory:
            if path in above_held:
                blocked[path] = "stays: it holds a kept path or a mount point"
                continue
            gone = path + b"/"
        listed = [change]
        if leaves_directory and change.old is not None and change.old.is_dir:
            rebuilt = path + b"/"
            listed += [Change(entry.path, entry, None, Aspect.REMOVED) for entry in _inside(old, path)]
        for one in listed:
            if not _comes_along(one, old, snapshots):
                yield one


def _comes_along(change: Change, old: Tree, snapshots: list[tuple[bytes, bool]]) -> bool:
    """Whether a restored subvolume above brings this path; keeps the stack of such subvolumes."""
    while snapshots and not change.path.startswith(snapshots[-1][0]):
        snapshots.pop()
    entry = change.old
    if entry is None or not entry.subvolume or (change.new is not None and not change.aspects & Aspect.TYPE):
        return bool(snapshots) and snapshots[-1][1] and entry is not None
    snapshots.append((change.path + b"/", _has_snapshot(old, entry)))
    return False


def _inside(tree: Tree, path: bytes) -> list[Entry]:
    return [entry for entry in tree.walk(path) if entry.path != path]


def _has_snapshot(old: Tree, entry: Entry) -> bool:
    if not entry.subvolume or not isinstance(old, Subvolumes):
        return False
    fd = old.subvolume_fd(entry.path)
    if fd is not None:
        os.close(fd)
    return fd is not None


def _inode(entry: Entry) -> Inode:
    return entry.dev, entry.ino


def _above(path: bytes) -> Iterator[bytes]:
    while path:
        path = path.rpartition(b"/")[0]
        yield path
