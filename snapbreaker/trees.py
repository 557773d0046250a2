"""The two sides of a comparison: a volume as it was, and as it is now."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence

from snapbreaker import paths, roots, selection
from snapbreaker.checkpoint.record import VolumeRecord
from snapbreaker.errors import RestoreError
from snapbreaker.files.changetree import ChangeTree
from snapbreaker.files.diff import diff
from snapbreaker.files.entry import Change, sort_key
from snapbreaker.files.live import LiveTree
from snapbreaker.files.narrowed import narrowed
from snapbreaker.files.tree import Tree
from snapbreaker.files.watched import Watched
from snapbreaker.goal import Goal
from snapbreaker.progress import Progress, silent


def pending(
    volume: VolumeRecord, old: Tree, live: LiveTree, goal: Goal, progress: Progress = silent
) -> Iterable[Change]:
    """What differs between the live tree and the goal."""
    now = live if progress is silent else Watched(live, "compare", progress)
    parts = below(volume, goal.paths)
    if isinstance(old, ChangeTree):
        for part in parts:
            yield from old.changes(now, part)
    else:
        one, other = compared(old, now, live)
        for part in parts:
            yield from diff(one, other, volume.stored.policy, volume.proof, part)


def compared(old: Tree, now: Tree, live: LiveTree, touched: Collection[bytes] = ()) -> tuple[Tree, Tree]:
    """What is to be walked to compare ``old`` with ``now``, which shows ``live``: less than all where the backend
    knows where they may differ.
    """
    candidates = old.candidates(live)
    return (old, now) if candidates is None else narrowed(old, now, candidates, touched)


def source(volume: VolumeRecord, undo: bool) -> Tree:
    """The files to go back to: the checkpoint's view, or the undo set. Raises RestoreError without its vault."""
    _refuse_without_vault(volume)
    backend = selection.load(volume.backend)
    return backend.undo(volume.stored) if undo else backend.open(volume.stored)


def live_tree(volume: VolumeRecord) -> LiveTree:
    """The volume as it is now. Raises RestoreError when its filesystem is no longer mounted there."""
    stored = volume.stored
    _refuse_without_vault(volume)
    root = stored.volume.root
    skip = [os.fsencode(paths.relative(point, root)) for point in stored.volume.skip]
    borrowed = selection.load(volume.backend).borrowed(stored)
    with roots.opened(stored.volume) as fd:
        return LiveTree(fd, stored.policy, skip=skip, borrowed=borrowed)


def _refuse_without_vault(volume: VolumeRecord) -> None:
    stored = volume.stored
    if not os.path.isdir(stored.vault):
        raise RestoreError(
            f"the vault {stored.vault} is not there", f"is the filesystem of {stored.volume.root} still mounted?"
        )


def below(volume: VolumeRecord, wanted: Sequence[str]) -> list[bytes]:
    """``wanted`` relative to the volume's root, none in another; those of other volumes left out. Of an empty one:
    all of it.
    """
    root = volume.stored.volume.root
    if not wanted or any(paths.is_below(root, path) for path in wanted):
        return [b""]
    found = {os.fsencode(paths.relative(path, root)) for path in wanted if paths.is_below(path, root)}
    return [part for part in sorted(found, key=sort_key) if not any(part.startswith(o + b"/") for o in found)]
