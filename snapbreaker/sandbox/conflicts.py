"""What others changed under a sandbox: applying it would overwrite that, or be wrong.

Nothing is recorded of the files when a sandbox begins. But a file that nobody touched has an old ctime, and any
change of it, also by rename(2) or link(2), gives it a new one (``Proof``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache

from snapbreaker.files.entry import Entry
from snapbreaker.files.live import LiveTree
from snapbreaker.files.merged import Merged
from snapbreaker.files.proof import Proof
from snapbreaker.linux.handles import handle_of_fd


def conflicts(merged: Merged, lower: LiveTree, proof: Proof) -> Iterator[bytes]:
    """Paths of the upper, or below what it removes or replaces, that may have changed since ``proof`` was taken.

    A directory in which others made or removed other names is none. Raises OSError.
    """
    last = proof.last_ctime()

    @cache
    def _changed(directory: bytes) -> bool:
        entry = lower.lookup(directory)
        return entry is None or entry.ctime_ns > last

    for path, now in merged.hidden():
        if now is None:
            if path in merged.whiteouts or (path in merged.copied and _changed(path.rpartition(b"/")[0])):
                yield path  # somebody else has removed it; the run may also have renamed what was copied up
        elif now.ctime_ns > last:
            yield path
    for path in sorted(merged.merged):
        now, mine = lower.lookup(path), merged.lookup(path)
        if now is None or mine is None or not now.is_dir:
            yield path
        elif now.ctime_ns > last:
            same = (now.mode, now.uid, now.gid) == (mine.mode, mine.uid, mine.gid)
            if not same or lower.details(now) != merged.details(mine) or _is_another(merged, lower, now):
                yield path


def _is_another(merged: Merged, lower: LiveTree, now: Entry) -> bool:
    """Whether others have put another directory in the place of the one that the sandbox saw."""
    origin = merged.origins.get(now.path)
    if origin is None:
        return False
    fd = lower.open_entry(now)
    try:
        return handle_of_fd(fd) != origin
    finally:
        os.close(fd)
