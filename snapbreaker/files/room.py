"""Space for what must come back on a filesystem that the run has filled."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import ParamSpec, TypeVar

from snapbreaker.files import ops
from snapbreaker.files.entry import Change, Entry
from snapbreaker.files.live import LiveTree
from snapbreaker.files.remove import unlock

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Room:
    """Deletes files that the run added, largest first, when there is no space otherwise.

    ``added`` is empty unless the caller allows it: such a file is then gone instead of displaced.
    """

    def __init__(self, live: LiveTree, changes: Iterable[Change] = ()) -> None:
        self._live = live
        added = [change.new for change in changes if change.old is None and change.new is not None]
        self._added = sorted((e for e in added if e.is_file and e.nlink == 1), key=lambda entry: entry.size)
        self.deleted: list[bytes] = []

    def make(self, action: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """The result of ``action``, done again after each file deleted for want of space."""
        while True:
            try:
                return action(*args, **kwargs)
            except OSError as error:
                if error.errno not in NO_SPACE or not self._added:
                    raise
                with suppress(OSError):
                    self._delete(self._added.pop())

    def _delete(self, entry: Entry) -> None:
        parent, name = self._live.open_parent(entry.path)
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if status.st_ino != entry.ino or not stat.S_ISREG(status.st_mode):
            return
        try:
            ops.unlink(parent, name)
        except PermissionError:
            unlock(parent, name)
            ops.unlink(parent, name)
        self.deleted.append(entry.path)
        ops.syncfs(parent)  # btrfs gives the space back with the transaction
