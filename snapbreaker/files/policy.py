"""Path classes: what a restore puts back, what it lets be."""

from __future__ import annotations

from enum import StrEnum

from snapbreaker.dataclass import dataclass


class PathClass(StrEnum):
    RESTORE = "restore"
    KEEP_CONTENT = "keep-content"  # growth stays; what the run created moves into the record
    KEEP = "keep"  # neither recorded nor touched, nor anything below it


@dataclass(frozen=True, slots=True)
class Policy:
    """The class of each path of one tree; the longest prefix wins, RESTORE where none matches.

    ``classes`` maps relative paths (as in ``Entry.path``) to classes; a path covers itself and all below it.
    """

    classes: tuple[tuple[bytes, PathClass], ...] = ()

    def of(self, path: bytes) -> PathClass:
        best, found = -1, PathClass.RESTORE
        for prefix, path_class in self.classes:
            if len(prefix) > best and (not prefix or path == prefix or path.startswith(prefix + b"/")):
                best, found = len(prefix), path_class
        return found

    def keeps(self, path: bytes) -> bool:
        """Whether a walk leaves ``path`` and all below it out."""
        return bool(self.classes) and self.of(path) is PathClass.KEEP
