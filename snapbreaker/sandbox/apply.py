"""Applying what a command did in its sandbox: the merged tree becomes the live one.

A restore, towards what the command saw: staged, one rename(2) a path, and what was there lies in slots afterwards.
That is the undo set; whatever ends the work, going back to it puts all of it back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import field

from snapbreaker.checkpoint.record import Record, VolumeRecord
from snapbreaker.checkpoint.states import State
from snapbreaker.collector import uncollected
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import RestoreError, SnapbreakerError
from snapbreaker.files import displaced
from snapbreaker.files.diff import diff
from snapbreaker.files.entry import Aspect, Change, Entry
from snapbreaker.files.live import LiveTree
from snapbreaker.files.merged import BY_OTHERS, BY_ROOT, Merged, can_hold_user_attributes
from snapbreaker.files.narrowed import narrowed
from snapbreaker.files.policy import Policy
from snapbreaker.files.proof import Proof
from snapbreaker.files.restore import restore
from snapbreaker.files.stage import Stage
from snapbreaker.files.verify import Difference, verify
from snapbreaker.files.watched import Watched
from snapbreaker.goal import Goal
from snapbreaker.issue import Issue, IssueType
from snapbreaker.paths import is_below
from snapbreaker.progress import Progress, silent
from snapbreaker.report.model import Changes, absolute
from snapbreaker.report.wording import path_text
from snapbreaker.sandbox.conflicts import Conflicts
from snapbreaker.sandbox.removals import Name
from snapbreaker.sandbox.upper import APPLIED, Uppers
from snapbreaker.system.parts import UNIT_FILES
from snapbreaker.trees import live_tree

_NAMED = 20  # paths that an issue names
_UNDO = Goal(undo=True, halted=True)


@dataclass(slots=True)
class Applied:
    """What the machine got. ``parted`` are files that had several names and were changed in place under one,
    ``crossed`` names of files that had others in another subvolume.
    ``has_units``: unit files were among it.
    """

    changes: Changes = field(default_factory=Changes)
    octets: int = 0
    parted: list[str] = field(default_factory=list)
    crossed: list[str] = field(default_factory=list)
    has_units: bool = False


class Conflicting(RestoreError):
    """Others have changed ``paths`` meanwhile. Nothing was changed."""

    def __init__(self, paths: Sequence[str]) -> None:
        super().__init__(f"{len(paths)} paths changed meanwhile")
        self.paths = paths


class View:
    """One volume as the command left it, beside the live one."""

    def __init__(self, volume: VolumeRecord, uppers: Uppers, stack: ExitStack) -> None:
        self.volume, self.root = volume, volume.stored.volume.root
        fd = uppers.fds[volume.stored.volume.number]
        self.live = stack.enter_context(live_tree(volume))
        upper = stack.enter_context(LiveTree(fd))
        attributes = can_hold_user_attributes(fd)
        prefix = BY_ROOT if os.geteuid() == 0 else BY_OTHERS  # who makes the sandbox applies it
        self.merged = Merged(upper, self.live, user_attributes=attributes, prefix=prefix)

    def changes(self, progress: Progress = silent) -> list[Change]:
        """What the live tree lacks: a change's ``old`` is what the command saw, its ``new`` what is live."""
        now = Watched(self.live, "compare", progress)
        old, new = narrowed(self.merged, now, self.merged.candidates(self.live))
        return list(diff(old, new, Policy(), Proof.none()))

    def conflicts(self, removed: Collection[Name] | None) -> list[str]:
        """Absolute paths; ``removed`` are the names that others removed meanwhile, None: not known."""
        self._conflicts = Conflicts(self.merged, self.live, self.volume.proof, removed)
        return self._conflicting()

    def _conflicting(self) -> list[str]:
        return [absolute(self.root, path) for path in self._conflicts.found()]

    def apply(self, changes: Sequence[Change], progress: Progress) -> int:
        """Make the live tree the merged one; bytes that were written. Raises RestoreError: nothing, or not all."""
        vault = self.volume.stored.vault
        displaced.note_tops(vault, self._tops(vault))
        stage = Stage(vault, APPLIED)
        done = restore(self.merged, self.live, changes, stage, progress, last_look=self._last_look)
        if done.failures:
            failure = done.failures[0]
            raise RestoreError(f"{path_text(absolute(self.root, failure.path))}: {failure.text}")
        return done.octets

    def _tops(self, vault: str) -> list[Entry]:
        """The subvolumes in whose top directories slots will be made: nothing else knows their times then."""
        entries = [entry for path in self.merged.merged if (entry := self.live.lookup(path)) is not None]
        apart = os.stat(vault).st_dev != os.fstat(self.live.root_fd).st_dev
        return [entry for entry in entries if entry.subvolume or (apart and not entry.path)]

    def _last_look(self) -> None:
        if found := self._conflicting():
            raise Conflicting(found)

    def left(self) -> list[Difference]:
        """What is not as the command saw it, though it was applied."""
        old, new = narrowed(self.merged, self.live, self.merged.paths)
        found = verify(old, new, Policy(), Proof.none(), ())
        return [one for one in found if one.aspects != Aspect.MTIME or not self._is_directory(one.path)]

    def _is_directory(self, path: bytes) -> bool:
        entry = self.live.lookup(path)
        return entry is not None and entry.is_dir


@uncollected
def apply(record: Record, uppers: Uppers, progress: Progress = silent) -> Applied | Issue:
    """Apply the uppers of all volumes. The record is *applying* from the moment when something may be changed.

    Nothing may run in the sandbox any more. An issue means that all of it has to go back, if anything was done.
    """
    try:
        with ExitStack() as stack:
            views = [View(volume, uppers, stack) for volume in record.meta.volumes if uppers.has(volume)]
            removed = uppers.removals.taken() if uppers.removals is not None else None
            return _apply(record, views, removed, progress)
    except Conflicting as found:
        return conflict_issue(found.paths)
    except SnapbreakerError as error:
        return _issue(f"what the command did could not be applied: {error}", "apply")
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return _issue(f"what the command did could not be applied: {where}{error.strerror}", "apply")


def _apply(record: Record, views: Sequence[View], removed: Collection[Name] | None, progress: Progress) -> Applied:
    todo = [view.changes(progress) for view in views]
    if found := [path for view in views for path in view.conflicts(removed)]:
        raise Conflicting(found)
    record.enter(State.APPLYING, goal=_UNDO.as_dict())
    applied = Applied()
    for view, changes in zip(views, todo, strict=True):
        applied.parted += [absolute(view.root, path) for path in view.merged.parted]
        applied.crossed += [absolute(view.root, path) for path in view.merged.crossed]
        applied.changes.add(view.root, map(forward, changes))
        applied.has_units |= any(_is_unit(absolute(view.root, change.path)) for change in changes)
        if changes:
            applied.octets += view.apply(changes, progress)
            if left := view.left():
                raise RestoreError(f"{path_text(absolute(view.root, left[0].path))}: {left[0].text}")
    return applied


def catch_up(record: Record) -> None:
    """What services have made of the changes since is the run's, too. Raises OSError, SnapbreakerError."""
    for volume in record.meta.volumes:
        with live_tree(volume) as live:
            displaced.catch_up(volume.stored.vault, APPLIED, live)


def _is_unit(path: str) -> bool:
    return any(is_below(path, directory) for directory in UNIT_FILES)


def forward(change: Change) -> Change:
    """The change seen the other way round: from what was live to what the command saw."""
    aspects = change.aspects
    if aspects & (Aspect.ADDED | Aspect.REMOVED):
        aspects ^= Aspect.ADDED | Aspect.REMOVED
    return Change(change.path, change.new, change.old, aspects, change.now, change.was)


def conflict_issue(paths: Sequence[str]) -> Issue:
    named = ", ".join(path_text(path) for path in paths[:_NAMED])
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    reason = f"others changed, or may have changed, what the command changed in its sandbox: {named}{more}"
    return _issue(reason, "conflict")


def _issue(reason: str, rule: str) -> Issue:
    return Issue(IssueType.CHECK, reason, rule, time=time.time())
