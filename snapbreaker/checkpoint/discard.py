"""Removing a checkpoint: vaults first, the record last, so that what is left can always be found again."""

from __future__ import annotations

import os

from snapbreaker import selection
from snapbreaker.backend import Volume
from snapbreaker.checkpoint import vault
from snapbreaker.checkpoint.record import Record
from snapbreaker.files.remove import remove_tree
from snapbreaker.files.stage import remove_attempts


def discard(record: Record, volumes: list[tuple[Volume, str]] | None = None) -> None:
    """Remove all that belongs to ``record``, whole or not. Idempotent. System calls only."""
    for volume, backend_name in volumes if volumes is not None else vault.noted(record.path):
        own = f"{volume.vault_base}/{record.id}/{volume.number}"
        if os.path.isdir(own):
            backend = selection.load(backend_name)
            _remove_displaced(volume, own)
            backend.discard(volume, own, str(record.path / "volumes" / str(volume.number)))
        vault.remove(volume, record.id)
    parent = os.open(record.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(parent, os.fsencode(record.path.name))
        os.fsync(parent)
    finally:
        os.close(parent)


def _remove_displaced(volume: Volume, own: str) -> None:
    """What restores took away: in the vault, and in the subvolumes of the tree itself."""
    try:
        root = os.open(volume.root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove_attempts(own, root)
    finally:
        os.close(root)
