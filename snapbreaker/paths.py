"""Arithmetic on absolute paths; nothing here looks at a filesystem."""

from __future__ import annotations


def is_below(path: str, directory: str) -> bool:
    """Whether ``path`` is ``directory`` or lies in it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def relative(path: str, directory: str) -> str:
    """``path`` as seen from ``directory``, which it lies in; empty when they are the same."""
    return path[len(directory.rstrip("/")) :].strip("/")


def below(directory: str, part: str) -> str:
    """``part`` (relative, may be empty) in ``directory``."""
    return directory.rstrip("/") + "/" + part if part else directory
