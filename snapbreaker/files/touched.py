"""The paths that are compared in full, whatever their metadata proves."""

from __future__ import annotations

from collections.abc import Collection


class Touched:
    """A set of paths with the directories above them.

    Not with all that is below: what a restore did below a path is in the set itself, path by path.
    """

    def __init__(self, paths: Collection[bytes]) -> None:
        self._paths = frozenset(paths)
        self._parents = frozenset(parent for path in self._paths for parent in _parents(path))

    def __bool__(self) -> bool:
        return bool(self._paths)

    def covers(self, path: bytes) -> bool:
        return path in self._paths or path in self._parents


def _parents(path: bytes) -> list[bytes]:
    found = [b""] if path else []
    at = path.find(b"/")
    while at >= 0:
        found.append(path[:at])
        at = path.find(b"/", at + 1)
    return found
