"""What changed again since a run was committed: undoing the run would lose it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from snapbreaker.checkpoint.record import Record
from snapbreaker.errors import Conflict
from snapbreaker.files.changetree import ChangeTree
from snapbreaker.files.policy import PathClass
from snapbreaker.files.watched import Watched
from snapbreaker.progress import Progress, silent
from snapbreaker.trees import below, live_tree, source


def conflicts(record: Record, only: Sequence[str] = (), progress: Progress = silent) -> list[bytes]:
    """Absolute paths of the undo set that changed again since the commit."""
    found: list[bytes] = []
    for volume in record.meta.volumes:
        root = os.fsencode(volume.stored.volume.root.rstrip("/"))
        with source(volume, undo=True) as undo, live_tree(volume) as live:
            assert isinstance(undo, ChangeTree)
            wanted, policy = below(volume, only), volume.stored.policy
            found += [
                root + b"/" + path
                for path in undo.conflicts(Watched(live, "compare", progress))
                if _covered(path, wanted) and policy.of(path) is not PathClass.KEEP_CONTENT  # logs grow
            ]
    return found


def refuse_conflicts(record: Record, only: Sequence[str] = (), progress: Progress = silent) -> None:
    """Raise Conflict when undoing the run would lose what came after it."""
    if found := conflicts(record, only, progress):
        raise Conflict(
            f"{len(found)} path{'s' if len(found) > 1 else ''} changed again since that run",
            found,
            "look at them; --force undoes them all the same (what it displaces is kept until pruned)",
        )


def _covered(path: bytes, wanted: Sequence[bytes]) -> bool:
    return any(not part or path == part or path.startswith(part + b"/") for part in wanted)
