"""The paths that are compared in full, whatever their metadata proves."""

from __future__ import annotations

from collections.abc import Collection


class Touched:
    """A set of paths with all that is below them and their parents. Asked in the order of a walk."""

    def __init__(self, paths: Collection[bytes]) -> None:
        self._paths = frozenset(paths)
        self._parents = frozenset(parent for path in self._paths for parent in _parents(path))
        self._below = b"\0"  # the prefix of what is below the last path met; no path begins with NUL

    def __bool__(self) -> bool:
        return bool(self._paths)

    def covers(self, path: bytes) -> bool:
        if path.startswith(self._below):
            return True
        if path in self._paths:
            self._below = path + b"/" if path else b""
            return True
        return path in self._parents


def _parents(path: bytes) -> list[bytes]:
    found = [b""] if path else []
    at = path.find(b"/")
    while at >= 0:
        found.append(path[:at])
        at = path.find(b"/", at + 1)
    return found
