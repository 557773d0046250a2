"""What is to be done after the boot for a dataset that is to come, as it is noted in that dataset itself.

In ``.snapbreaker/at-boot/NAME`` at its top: where that is found in what is mounted, it is in place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from enum import StrEnum

from snapbreaker.backend import Volume
from snapbreaker.carried import is_ours
from snapbreaker.dataclass import dataclass
from snapbreaker.linux.durable import read_json, write_json
from snapbreaker.linux.mount import detached_mount

_BASE = ".snapbreaker"
DIRECTORY_NAME = "at-boot"


class Stage(StrEnum):
    SCHEDULED = "scheduled"
    CLEARED = "cleared"  # what was kept is as old as the checkpoint: it is gone from the new dataset
    CARRIED = "carried"


@dataclass(frozen=True, slots=True)
class Plan:
    """``checkpoint`` is the name of its snapshots, ``old`` what the displaced dataset is called once it is one.

    ``kept`` are the paths that are carried over, ``times`` the mtimes of the directories that hold them.
    """

    checkpoint: str
    old: str
    kept: list[str]
    times: dict[str, int]
    stage: str = Stage.SCHEDULED


@contextmanager
def top_of(dataset: str, *, writable: bool = False) -> Iterator[int]:
    """The top directory of a dataset that need not be mounted. Raises OSError."""
    with detached_mount("zfs", dataset, {}, [] if writable else ["ro"]) as fd:
        yield fd


def write(top: str, plan: Plan) -> None:
    """``top`` is the path of the dataset's top directory."""
    base = f"{top}/{_BASE}"
    for path in (base, f"{base}/{DIRECTORY_NAME}"):
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
    write_json(f"{base}/{DIRECTORY_NAME}/{plan.checkpoint}", asdict(plan))


def plans(volume: Volume) -> list[Plan]:
    """Of all checkpoints that were reverted to on this volume, and are not deleted yet."""
    directory = f"{volume.vault_base}/{DIRECTORY_NAME}"
    try:
        if not is_ours(directory):
            return []
        found = [name for name in os.listdir(directory) if not name.endswith(".new")]
    except FileNotFoundError:
        return []
    return [Plan(**read_json(f"{directory}/{name}")) for name in sorted(found)]


def plan_of(volume: Volume, checkpoint: str) -> Plan | None:
    return next((plan for plan in plans(volume) if plan.checkpoint == checkpoint), None)


def remove(volume: Volume, checkpoint: str) -> None:
    """Idempotent."""
    directory = f"{volume.vault_base}/{DIRECTORY_NAME}"
    with suppress(FileNotFoundError):
        os.unlink(f"{directory}/{checkpoint}")
    with suppress(OSError):
        os.rmdir(directory)
