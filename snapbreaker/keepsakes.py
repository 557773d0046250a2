"""Files that a rollback takes away and somebody may want: kept in the record under their own names."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from snapbreaker.files.entry import Change
from snapbreaker.files.live import LiveTree
from snapbreaker.linux.clone import clone_file
from snapbreaker.report.model import absolute

COPIED = 256 << 20  # bytes in all that are copied where neither a link nor a reflink can be made


class Keepsakes:
    """The directory ``place``, made when needed. Saving never raises: what could not be saved is in the vault."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._left = COPIED
        self.saved: dict[str, bytes] = {}  # where each is

    def save(self, root: str, live: LiveTree, change: Change) -> None:
        """Keep the file of ``change.new``: by a hard link, so that it costs nothing, or a copy of its content.

        A program with set-user-ID or set-group-ID is copied, without these: nobody keeps a way to become another.

        ``root`` is that of the volume, absolute.
        """
        if change.new is None or not stat.S_ISREG(change.new.mode):
            return
        path = absolute(root, change.path)
        try:
            target = self._free(os.fsencode(self._place) + os.fsencode(path))
            privileged = change.new.mode & (stat.S_ISUID | stat.S_ISGID)
            if (not privileged and self._linked(live, change.path, target)) or self._copied(live, change, target):
                self.saved[path] = target
        except OSError:
            return

    def where(self, path: str) -> str:
        """For a person: where the file at ``path`` (absolute) is now."""
        if path in self.saved:
            return f"saved as {os.fsdecode(self.saved[path])}"
        return "went back with the rest, and lies in the vault"

    def _free(self, wanted: bytes) -> bytes:
        """A name that is not taken: what an attempt that was cut off has saved is never given up."""
        os.makedirs(os.path.dirname(wanted), mode=0o700, exist_ok=True)
        name, number = wanted, 0
        while os.path.lexists(name):
            number += 1
            name = b"%s.~%d~" % (wanted, number)
        return name

    def _linked(self, live: LiveTree, path: bytes, target: bytes) -> bool:
        directory, name = live.open_parent(path)
        with suppress(OSError):  # another filesystem or subvolume, or immutable
            os.link(name, target, src_dir_fd=directory, follow_symlinks=False)
            return True
        return False

    def _copied(self, live: LiveTree, change: Change, target: bytes) -> bool:
        assert change.new is not None
        source = live.open_entry(change.new)
        try:
            out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                if clone_file(source, out) or self._written(source, out, change.new.size):
                    return True
                os.unlink(target)
                return False
            finally:
                os.fchmod(out, stat.S_IMODE(change.new.mode) & 0o777)
                os.fchown(out, change.new.uid, change.new.gid)
                os.utime(out, ns=(change.new.mtime_ns, change.new.mtime_ns))
                os.close(out)
        finally:
            os.close(source)

    def _written(self, source: int, out: int, size: int) -> bool:
        if size > self._left:
            return False
        self._left -= size
        while data := os.read(source, 1 << 20):
            view = memoryview(data)
            while view:
                view = view[os.write(out, view) :]
        return True
