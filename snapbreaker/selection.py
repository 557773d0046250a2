"""Which backend serves a volume: the one lazy table, widened by entry points, and the automatic choice."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Any

from snapbreaker.backend import Availability, Backend, Capability, Reason, Volume
from snapbreaker.errors import CheckpointError, UsageError

ENTRY_POINTS = "snapbreaker.backends"

_BUILT_IN = {
    "btrfs": "snapbreaker_backends.btrfs:BtrfsBackend",
    "lvm": "snapbreaker_backends.lvm:LvmBackend",
    "zfs": "snapbreaker_backends.zfs:ZfsBackend",
    "overlay": "snapbreaker_backends.overlay:OverlayBackend",
    "filecopy": "snapbreaker_backends.filecopy:FilecopyBackend",
}


def names() -> list[str]:
    """All backends that there are, built in or installed; none of them is loaded."""
    return sorted({**_BUILT_IN, **_installed()})


def loadable() -> list[str]:
    """Those of them that can be loaded; the others have done nothing."""
    found = []
    for name in names():
        with suppress(CheckpointError):
            load(name)
            found.append(name)
    return found


@cache
def load(name: str) -> Backend:
    """The backend called ``name``. Raises UsageError when there is none, CheckpointError when it cannot be loaded.

    Loaded once: a later call needs nothing of the disk, so it works after the live system was broken.
    """
    place = _BUILT_IN.get(name) or _installed().get(name)
    if place is None:
        raise UsageError(f"there is no backend {name!r}", "one of: " + ", ".join(names()))
    module, _, attribute = place.partition(":")
    try:
        kind: Any = getattr(import_module(module), attribute)
        backend = kind()
    except Exception as error:
        raise CheckpointError(f"backend {name} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(backend, Backend):
        raise CheckpointError(f"backend {name} cannot be loaded: {place} is no snapbreaker.backend.Backend")
    return backend


def survey(volume: Volume) -> list[tuple[str, Availability]]:
    """Every backend with what it says of ``volume``, in the order in which automatic selection tries them."""
    loaded: list[tuple[int, str, Availability]] = []
    for name in names():
        try:
            backend = load(name)
        except CheckpointError as error:
            loaded.append((1 << 30, name, Availability((Reason(error.message, error.hint),))))
        else:
            loaded.append((backend.rank, name, _availability(backend, volume)))
    return [(name, availability) for _, name, availability in sorted(loaded, key=lambda one: one[:2])]


def first(answers: list[tuple[str, Availability]], sandbox: bool = False) -> str | None:
    """Which of the answers of ``survey`` is the choice; with ``sandbox`` that may be one that needs one."""
    for name, availability in answers:
        if availability and (sandbox or Capability.SANDBOX not in load(name).capabilities):
            return name
    return None


def choose_all(
    volumes: Sequence[Volume], forced: str | None = None, sandbox: bool = False, on_disk: bool = False
) -> list[Backend]:
    """A backend for each of ``volumes``. With ``sandbox`` it may be one that runs the command in one, if that can
    serve all of them. Raises as ``choose``.
    """
    found = [choose(volume, forced, sandbox, on_disk)[0] for volume in volumes]
    apart = [Capability.SANDBOX in backend.capabilities for backend in found]
    if forced is None and any(apart) and not all(apart):
        return [choose(volume)[0] for volume in volumes]
    return found


def choose(
    volume: Volume, forced: str | None = None, sandbox: bool = False, on_disk: bool = False
) -> tuple[Backend, tuple[str, ...]]:
    """The backend for ``volume`` and what is to be said of the choice: its notes, and why not a better one.

    ``forced`` is the operator's own choice. One that needs a sandbox is not chosen unasked, but with ``sandbox``;
    ``on_disk``: what is written in it needs no memory.
    Raises CheckpointError with every reason when none can serve.
    """
    if forced is not None:
        backend = load(forced)
        availability = _availability(backend, volume)
        if on_disk:
            reasons = tuple(reason for reason in availability.reasons if not reason.of_memory)
            availability = replace(availability, reasons=reasons)
        if not availability:
            raise _refusal(volume, [(forced, availability)])
        return backend, availability.notes
    surveyed = survey(volume)
    chosen = first(surveyed, sandbox)
    passed_over: list[str] = []
    for name, availability in surveyed:
        if name == chosen:
            return load(name), (*availability.notes, *passed_over)
        passed_over += [f"not {name}: {reason.text}" for reason in availability.reasons]
    raise _refusal(volume, surveyed)


def _availability(backend: Backend, volume: Volume) -> Availability:
    try:
        return backend.availability(volume)
    except OSError as error:
        return Availability((Reason(f"cannot be examined: {error}"),))


def _refusal(volume: Volume, refused: list[tuple[str, Availability]]) -> CheckpointError:
    reasons = [(name, reason) for name, availability in refused for reason in availability.reasons]
    return CheckpointError(
        f"no checkpoint of {volume.root}: " + "; ".join(f"{name}: {reason.text}" for name, reason in reasons),
        "; ".join(dict.fromkeys(reason.remedy for _, reason in reasons if reason.remedy)),
    )


@cache
def _installed() -> dict[str, str]:
    if not any(map(_may_have_backends, sys.path)):
        return {}
    from importlib.metadata import entry_points  # 10 ms

    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS) if point.name not in _BUILT_IN}


def _may_have_backends(place: str) -> bool:
    """Whether a package installed in ``place`` may have an entry point for us; quicker than to ask for it."""
    try:
        names = [name for name in os.listdir(place) if name.endswith((".dist-info", ".egg-info"))]
    except FileNotFoundError:
        return False
    except OSError:  # a zip file: others than our own may hold packages
        return place != getattr(__spec__.loader, "archive", None)
    for name in names:
        try:
            with open(os.path.join(place, name, "entry_points.txt"), "rb") as file:
                if ENTRY_POINTS.encode() in file.read():
                    return True
        except OSError:
            continue
    return False
