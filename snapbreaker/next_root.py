"""A soft reboot is enough: the root to come is mounted where systemd looks for one.

systemd ends all processes, goes over to ``/run/nextroot`` and starts everything anew; the kernel goes on
(systemd-soft-reboot.service(8), systemd 254).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

from snapbreaker.backend import Backend, Capability, Reason
from snapbreaker.checkpoint.record import VolumeRecord
from snapbreaker.errors import SnapbreakerError
from snapbreaker.layout import MODULES
from snapbreaker.linux import systemd
from snapbreaker.linux.unmount import unmount
from snapbreaker.trees import source

POINT = "/run/nextroot"
_SINCE = 254

Ready = Sequence[tuple[VolumeRecord, Backend]]
"""The volumes that are replaced at boot."""


def refusals(ready: Ready) -> Iterator[Reason]:
    """Why only a whole reboot will do. Raises CheckpointError, SystemdError."""
    hint = "leave --soft-reboot out"
    version = _version()
    if version < _SINCE:
        yield Reason(f"a soft reboot needs systemd {_SINCE}, and this is {version or 'none'}", hint)
    root = _root(ready)
    if root is None:
        yield Reason("the root that is to come cannot be mounted before the boot", hint)
        return
    kernel = os.uname().release
    places = [f"{directory}/{kernel}" for directory in MODULES]
    with source(root[0], undo=False) as old:
        there = any(old.lookup(os.fsencode(place.lstrip("/"))) for place in places)
    if any(map(os.path.isdir, places)) and not there:
        yield Reason(f"the checkpoint has no modules of the kernel {kernel}, which would go on", hint)


def prepare(ready: Ready) -> None:
    """Mount it. Raises OSError, ToolError."""
    withdraw()
    root = _root(ready)
    assert root is not None
    os.makedirs(POINT, mode=0o755, exist_ok=True)
    root[1].mount_next(root[0].stored, POINT)


def withdraw() -> None:
    """Nothing is there any more. Idempotent."""
    with suppress(OSError):
        while os.path.ismount(POINT):
            unmount(POINT)
        os.rmdir(POINT)


def _root(ready: Ready) -> tuple[VolumeRecord, Backend] | None:
    able = [each for each in ready if Capability.NEXT_ROOT in each[1].capabilities]
    return next((each for each in able if each[0].stored.volume.root == "/"), None)


def _version() -> int:
    """0 where systemd is not PID 1."""
    if not systemd.booted():
        return 0
    with suppress(SnapbreakerError, ValueError), systemd.Manager.connect() as manager:
        text = str(manager.property(systemd.PATH, f"{systemd.NAME}.Manager", "Version"))
        return int(text.partition(".")[0].partition("-")[0].partition(" ")[0])
    return 0
