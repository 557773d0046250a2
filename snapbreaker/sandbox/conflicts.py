"""What others changed under a sandbox: applying it would overwrite that, or be wrong.

Nothing is recorded of the files when a sandbox begins. But a file that nobody touched has an old ctime, and any
change of it, also by rename(2) or link(2), gives it a new one (``Proof``). A directory in which others made or
removed names has a new one as well: that it is still the same is told by its file handle, which the overlay has
noted (``Merged.origins``).
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator

from snapbreaker.files.entry import Details, Entry
from snapbreaker.files.live import LiveTree
from snapbreaker.files.merged import Merged
from snapbreaker.files.proof import Proof
from snapbreaker.linux.handles import Handle, handle_of
from snapbreaker.sandbox.removals import Name

# The file is gone, or its filesystem has no handles.
_NO_HANDLE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EOPNOTSUPP})


class Conflicts:
    """Looks for them on one volume. ``removed``: names that others removed meanwhile; None: that is not known, and
    they may have removed any in a directory that has a new ctime.
    """

    def __init__(
        self, merged: Merged, lower: LiveTree, proof: Proof, removed: Collection[Name] | None = None
    ) -> None:
        self._merged, self._lower, self._proof, self._removed = merged, lower, proof, removed
        self._tops: dict[bytes, tuple[int, int, int, Details]] = {}  # of subvolumes, at the first look
        self._absent: set[bytes] | None = None  # what was not there at the first look, and need not have been

    def found(self) -> list[bytes]:
        """Paths of the upper, or below what it removes or replaces, that may have changed since the sandbox began.

        Called again it also knows what has gone since the first time. A directory in which others made or removed
        other names is none. Raises OSError.
        """
        self._lower.forget()  # what was open may have been renamed since
        last = self._proof.last_ctime()
        return [*self._directories(last), *self._hidden(last)]

    def _hidden(self, last: int) -> Iterator[bytes]:
        """What the upper removes or replaces."""
        first, absent = self._absent is None, self._absent or set()
        for path, now in self._merged.hidden():
            if now is not None:
                if now.ctime_ns > last:
                    yield path
            elif not first:
                if path not in absent:
                    yield path
            elif self._may_have_gone(path, last):
                yield path
            else:
                absent.add(path)
        self._absent = absent

    def _may_have_gone(self, path: bytes, last: int) -> bool:
        """Whether others may have removed what was at ``path``."""
        if path in self._merged.whiteouts:
            return True  # there was something
        above, _, name = path.rpartition(b"/")
        directory = self._lower.lookup(above)
        if directory is None:
            return True
        if _changed(directory) <= last:
            return False
        if self._removed is None:
            return True
        handle = self._handle(above)
        return handle is None or (handle, name) in self._removed

    def _directories(self, last: int) -> Iterator[bytes]:
        """What the upper has changed something in."""
        for path in sorted(self._merged.merged):
            now, mine = self._lower.lookup(path), self._merged.lookup(path)
            if now is None or mine is None or not now.is_dir or self._may_differ(now, mine, last):
                yield path

    def _may_differ(self, now: Entry, mine: Entry, last: int) -> bool:
        if not self._is_the_same(now, last):
            return True
        if not (now.subvolume or not now.path):
            return now.ctime_ns > last and not self._looks_the_same(now, mine)
        # Slots are made in it between the two looks, which gives it a new ctime.
        facts = (now.mode, now.uid, now.gid, self._lower.details(now))
        if self._tops.setdefault(now.path, facts) != facts:
            return True
        return self._absent is None and now.ctime_ns > last and not self._looks_the_same(now, mine)

    def _is_the_same(self, now: Entry, last: int) -> bool:
        """Whether it is the directory that the sandbox was made of.

        Another one in its place was renamed, and so has a new ctime; only the top may come with what is above.
        """
        is_old = _changed(now) <= last
        if is_old and now.path:
            return True
        origin = self._merged.origins[now.path]
        return is_old if origin is None else self._handle(now.path) == origin

    def _looks_the_same(self, now: Entry, mine: Entry) -> bool:
        same = (now.mode, now.uid, now.gid) == (mine.mode, mine.uid, mine.gid)
        return same and self._lower.details(now) == self._merged.details(mine)

    def _handle(self, directory: bytes) -> Handle | None:
        try:
            parent, name = self._lower.open_parent(directory)
            return handle_of(name, parent)
        except OSError as error:
            if error.errno not in _NO_HANDLE:
                raise
            return None


def _changed(directory: Entry) -> int:
    """When others last changed it. Making the vault gives the top of a filesystem a new ctime, no new mtime."""
    return directory.ctime_ns if directory.path else min(directory.ctime_ns, directory.mtime_ns)
