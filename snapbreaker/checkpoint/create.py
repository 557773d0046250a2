"""Making a checkpoint: whole, or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import field
from typing import Any

from snapbreaker import mounts, selection
from snapbreaker.backend import Backend, Capability, Creation, Stored, Volume
from snapbreaker.checkpoint import vault
from snapbreaker.checkpoint.discard import discard
from snapbreaker.checkpoint.lock import runtime_directory
from snapbreaker.checkpoint.owner import Owner
from snapbreaker.checkpoint.record import Meta, Record, VolumeRecord
from snapbreaker.checkpoint.states import State
from snapbreaker.checkpoint.store import Store
from snapbreaker.collector import uncollected
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError, SnapbreakerError
from snapbreaker.files.proof import Proof
from snapbreaker.guard.guards import Guards
from snapbreaker.linux.process import boot_id
from snapbreaker.linux.systemd import SystemdError
from snapbreaker.progress import Progress, silent
from snapbreaker.sandbox.serves import serves
from snapbreaker.system import holds, preflight
from snapbreaker.system.parts import Parts
from snapbreaker.system.state import BEFORE, capture
from snapbreaker.volumes import Scope, discover

Prepare = Callable[[Record, Sequence[Volume]], None]


def _no_preparation(record: Record, volumes: Sequence[Volume]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Request:
    """What the caller wants recorded."""

    scope: Sequence[str]
    keep: Sequence[str] = ()
    system: bool = False  # the scope is the system: other local filesystems are left out
    foreign: str = "restore"
    backend: str | None = None
    snapshot_size: int = 0  # bytes for what changes, where a snapshot needs a size; 0: the backend decides
    on_disk: bool = False  # a sandbox, if there is one, keeps what is written on a disk
    kind: str = "run"
    command: Sequence[str] = ()
    cwd: str = ""
    note: str = ""
    owners: Sequence[Owner] = field(default_factory=tuple)


@uncollected
def create(
    store: Store,
    request: Request,
    progress: Progress = silent,
    prepare: Prepare = _no_preparation,
    guards: Guards | None = None,
) -> Record:
    """A checkpoint in state *ready*.

    ``prepare`` is called before anything is recorded of the volumes. ``guards`` keep those that backends
    start. Raises SnapbreakerError when it could not be made whole; nothing is left of it then.
    """
    scope = covered(store, request.scope, request.keep, request.system)
    parts = Parts.of(scope)
    preflight.check(parts)
    chosen = list(zip(scope.volumes, _backends(request, scope), strict=True))
    store.refuse_pending()
    record = store.new()
    try:
        record.begin(list(request.owners))
        meta = _meta(record, request, scope, parts)
        if parts:
            capture(parts).save(record.path / BEFORE)
        if parts.services and request.kind == "run":
            holds.hold(record.path)
        prepare(record, scope.volumes)
        meta.volumes += _record_volumes(
            record, chosen, scope, progress, guards, {"snapshot_size": request.snapshot_size}
        )
        record.save_meta(meta)
        record.reserve()
        record.enter(State.READY)
    except BaseException as error:
        with suppress(Exception):  # the first error is the one to tell; `recover` finishes what is left
            discard(record, _volumes(chosen))
        raise _explained(error) from error
    return record


def _backends(request: Request, scope: Scope) -> list[Backend]:
    sandbox = request.kind == "run" and not request.system and serves(request.command)
    chosen = selection.choose_all(scope.volumes, request.backend, sandbox, request.on_disk)
    if request.kind != "run" and any(Capability.SANDBOX in backend.capabilities for backend in chosen):
        raise CheckpointError(f"{request.backend} tries a command: it records nothing by itself", "use `run`")
    return chosen


def covered(store: Store, scope: Sequence[str], keep: Sequence[str] = (), system: bool = False) -> Scope:
    """The volumes of a scope, without what is snapbreaker's own. Raises UsageError, CheckpointError."""
    ours = [str(store.path), runtime_directory()]
    return discover(scope, keep, [*ours, *map(os.path.realpath, ours)], system=system)


def _record_volumes(
    record: Record,
    chosen: Sequence[tuple[Volume, Backend]],
    scope: Scope,
    progress: Progress,
    guards: Guards | None,
    options: dict[str, Any],
) -> list[VolumeRecord]:
    """Each backend records all of its volumes, in one go if it can."""
    made: list[VolumeRecord] = []
    for backend in dict.fromkeys(backend for _, backend in chosen):
        wanted: list[tuple[Volume, Creation]] = []
        started = time.monotonic()
        for volume in (volume for volume, its in chosen if its is backend):
            place = record.path / "volumes" / str(volume.number)
            place.mkdir(mode=0o700, parents=True)
            # Noted before anything is made on the volume, so that what a crash leaves behind can be found.
            vault.note(record.path, volume, backend.name)
            own, policy = vault.make(volume, record.id), scope.policies[volume.number]
            wanted.append((volume, Creation(record.id, own, str(place), policy, progress, guards, options)))
        for (volume, creation), data in zip(wanted, backend.create_all(wanted), strict=True):
            vault.reserve(creation.vault)
            proof = Proof.from_dict(data["proof"]) if "proof" in data else Proof.none()
            stored = Stored(volume, creation.vault, creation.record, creation.policy, data)
            made.append(VolumeRecord(backend.name, stored, proof, time.monotonic() - started))
            started = time.monotonic()
    return sorted(made, key=lambda volume: volume.stored.volume.number)


def _meta(record: Record, request: Request, scope: Scope, parts: Parts) -> Meta:
    kernel = os.uname()
    return Meta(
        id=record.id,
        sequence=record.sequence,
        kind=request.kind,
        created=time.time(),
        command=list(request.command),
        cwd=request.cwd,
        scope=[os.path.realpath(path) for path in request.scope],
        keep=list(request.keep),
        note=request.note,
        host=kernel.nodename,
        kernel=kernel.release,
        boot=boot_id(),
        mounts=mounts.below(list(zip(scope.volumes, scope.policies, strict=True))),
        left_out=[{"path": left.path, "why": left.why} for left in scope.left_out],
        parts=parts.as_dict() if parts else {},
        foreign=request.foreign,
        free={volume.root: _free(volume) for volume in scope.volumes},
    )


def _free(volume: Volume) -> int:
    facts = os.statvfs(volume.mountpoint)
    return facts.f_bavail * facts.f_frsize


def _volumes(chosen: list[tuple[Volume, Backend]]) -> list[tuple[Volume, str]]:
    return [(volume, backend.name) for volume, backend in chosen]


def _explained(error: BaseException) -> BaseException:
    """An OSError in the middle of a checkpoint means that there is none."""
    if isinstance(error, SystemdError):
        return CheckpointError(error.message, error.hint)
    if isinstance(error, SnapbreakerError) or not isinstance(error, OSError):
        return error
    where = f": {os.fsdecode(error.filename)}" if error.filename else ""
    return CheckpointError(f"the checkpoint could not be made: {error.strerror}{where}")
