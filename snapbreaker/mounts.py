"""Mounts that appear or vanish inside the scope during a run."""

from __future__ import annotations

from collections.abc import Sequence

from snapbreaker.linux.mountinfo import read_mounts
from snapbreaker.linux.unmount import unmount
from snapbreaker.paths import is_below


def below(roots: Sequence[str]) -> list[str]:
    """Mount points at and below any of ``roots``, in the order in which they were mounted."""
    points = [mount.mountpoint for mount in read_mounts()]
    return [point for point in points if any(is_below(point, root) for root in roots)]


def undo(roots: Sequence[str], known: Sequence[str]) -> tuple[list[str], list[str]]:
    """Unmount what was mounted below ``roots`` since ``known`` was taken; (unmounted, missing) mount points.

    Raises OSError where a mount cannot be detached. A mount that is missing now is only told: what it showed
    is not in the checkpoint.
    """
    extra, missing = since(roots, known)
    for point in reversed(extra):
        unmount(point)
    return extra, missing


def since(roots: Sequence[str], known: Sequence[str]) -> tuple[list[str], list[str]]:
    """The mount points below ``roots`` that came since ``known`` was taken, and those that are gone."""
    now = below(roots)
    extra = list(now)
    for point in known:
        if point in extra:
            extra.remove(point)
    return extra, [point for point in known if point not in now]
