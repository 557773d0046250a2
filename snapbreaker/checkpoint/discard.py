"""Removing a checkpoint: vaults first, the record last, so that what is left can always be found again."""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from snapbreaker import selection
from snapbreaker.backend import Volume
from snapbreaker.checkpoint import vault
from snapbreaker.checkpoint.record import Record
from snapbreaker.errors import CheckpointError
from snapbreaker.files.remove import remove_tree
from snapbreaker.files.stage import remove_attempts
from snapbreaker.guard.guard import end as end_guard
from snapbreaker.linux.mountinfo import read_mounts
from snapbreaker.linux.systemd import SystemdError
from snapbreaker.sandbox import disk, keeper
from snapbreaker.system import holds

NOT_A_DIRECTORY = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def discard(
    record: Record, volumes: list[tuple[Volume, str]] | None = None, *, leave_unreachable: bool = False
) -> None:
    """Remove all that belongs to ``record``, whole or not. Idempotent. System calls only.

    Raises CheckpointError when a vault cannot be reached, or units that were held cannot be started, since nobody
    would know of them without the record, unless ``leave_unreachable``: they will never come back.
    """
    _put_timers_back(record, leave_unreachable)
    volumes = _volumes(record) if volumes is None else volumes
    if not leave_unreachable:
        _refuse_unreachable(record, volumes)
    for volume, backend_name in volumes:
        own = f"{volume.vault_base}/{record.id}/{volume.number}"
        if os.path.isdir(own):
            backend = selection.load(backend_name)
            end_guard(own)
            _remove_displaced(volume, own)
            backend.discard(volume, own, str(record.path / "volumes" / str(volume.number)))
        vault.remove(volume, record.id)
    _drop_sandbox(record)
    parent = os.open(record.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(parent, os.fsencode(record.path.name))
        os.fsync(parent)
    finally:
        os.close(parent)


def _drop_sandbox(record: Record) -> None:
    with suppress(CheckpointError):  # a damaged record notes nobody
        keeper.kill(record.status.get("sandbox", {}))
    disk.remove(record.path)


def _put_timers_back(record: Record, whatever: bool) -> None:
    try:
        holds.put_back(record.path)
    except SystemdError as error:
        if not whatever:
            raise CheckpointError(
                f"apt's own timers, held by checkpoint {record.id}, are still stopped: {error.message}",
                "`snapbreaker recover` tries again",
            ) from error


def _volumes(record: Record) -> list[tuple[Volume, str]]:
    try:
        return vault.noted(record.path)
    except (ValueError, KeyError, TypeError):  # damaged: the same is in the metadata
        return [(volume.stored.volume, volume.backend) for volume in record.meta.volumes]


def _refuse_unreachable(record: Record, volumes: list[tuple[Volume, str]]) -> None:
    mounted = {mount.mountpoint for mount in read_mounts()}
    for volume, _ in volumes:
        if volume.mountpoint not in mounted and not os.path.isdir(f"{volume.vault_base}/{record.id}"):
            raise CheckpointError(
                f"checkpoint {record.id} has a vault on the filesystem at {volume.mountpoint}: it is not mounted",
                f"mount it; if it will never come back: checkpoint delete --force {record.id}",
            )


def _remove_displaced(volume: Volume, own: str) -> None:
    """What restores took away: in the vault, and in the subvolumes of the tree itself."""
    try:
        root = os.open(volume.root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in NOT_A_DIRECTORY:
            raise
        return
    try:
        remove_attempts(own, root)
    finally:
        os.close(root)
