"""A checkpoint's own directory on each volume. Making and removing it does not show in the tree's times."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from snapbreaker.backend import Volume
from snapbreaker.errors import CheckpointError
from snapbreaker.files.remove import remove_tree
from snapbreaker.files.room import NO_SPACE, RESERVE
from snapbreaker.files.stage import attempts, remove_attempts
from snapbreaker.linux.durable import read_json, write_json
from snapbreaker.linux.times import times_kept

RESERVED = 8 << 20  # bytes: the plan of a restore takes some 200 for each changed path


def make(volume: Volume, checkpoint: str) -> str:
    """The empty vault of ``checkpoint`` on ``volume``, 0700. Raises CheckpointError where it cannot be made."""
    try:
        with times_kept(volume.mountpoint) as fd:
            with suppress(FileExistsError):
                os.mkdir(".snapbreaker", 0o700, dir_fd=fd)
            facts = os.stat(".snapbreaker", dir_fd=fd, follow_symlinks=False)
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
            raise CheckpointError(
                f"{volume.vault_base} is not a directory of ours", "remove it, or give it to root with mode 0700"
            )
        path = f"{volume.vault_base}/{checkpoint}/{volume.number}"
        os.makedirs(path, mode=0o700)
    except OSError as error:
        raise CheckpointError(
            f"cannot make the vault {volume.vault_base}: {error.strerror}",
            "the vault needs a place at the top of the scope's own filesystem",
        ) from error
    return path


def reserve(path: str) -> None:
    """Set space aside in the vault ``path``, so that a filesystem that the command fills can still be put back.

    To be made after the volume was recorded: a snapshot that held it would never give the space back. Raises
    CheckpointError on a filesystem that is full already.
    """
    fd = os.open(f"{path}/{RESERVE}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, RESERVED)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise CheckpointError(
            f"no space in {path} for what a rollback may need ({RESERVED >> 20} MiB)",
            "make space on that filesystem",
        ) from error
    finally:
        os.close(fd)


def unreserve(path: str) -> None:
    """Give the space back. Idempotent; where it cannot be done the space goes with the checkpoint."""
    with suppress(OSError):
        os.unlink(f"{path}/{RESERVE}")


def remove(volume: Volume, checkpoint: str) -> None:
    """Remove the vault of ``checkpoint`` on ``volume`` with all it holds, and the base when nothing is left."""
    base, own = volume.vault_base, f"{volume.vault_base}/{checkpoint}"
    try:
        fd = os.open(own, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        fd = -1
    if fd >= 0:
        try:
            _remove_restores(volume, f"{own}/{volume.number}")
            remove_tree(fd, os.fsencode(str(volume.number)))
        finally:
            os.close(fd)
        with suppress(OSError):  # another volume of this checkpoint on the same mount still has its vault here
            os.rmdir(own)
    if os.path.isdir(base) and not os.listdir(base):
        with times_kept(volume.mountpoint) as fd, suppress(OSError):
            os.rmdir(".snapbreaker", dir_fd=fd)


def _remove_restores(volume: Volume, vault: str) -> None:
    """What restores displaced lies in the vault, but on btrfs also in subvolumes nested in the volume."""
    if os.path.isdir(vault) and os.path.isdir(volume.root) and attempts(vault):
        root = os.open(volume.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_attempts(vault, root)
        finally:
            os.close(root)


def note(record: Path, volume: Volume, backend: str) -> None:
    """Write down in the record that ``volume`` is about to get a vault."""
    write_json(str(record / "volumes" / str(volume.number) / "vault.json"), {"backend": backend, **asdict(volume)})


def noted(record: Path) -> list[tuple[Volume, str]]:
    """The volumes that may have a vault of this record, with the names of their backends."""
    found = []
    for path in sorted((record / "volumes").glob("*/vault.json")):
        data = read_json(str(path))
        backend = data.pop("backend")
        found.append((Volume(**{**data, "skip": tuple(data["skip"])}), backend))
    return found


def orphans(volume: Volume, known: Collection[str]) -> list[str]:
    """Vaults on the volume of none of the checkpoints ``known``: of another store, or of a lost record."""
    try:
        names = os.listdir(volume.vault_base)
    except OSError:
        return []
    return sorted(f"{volume.vault_base}/{name}" for name in names if name not in known)
