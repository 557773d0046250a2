"""What is to take a volume's place at boot, as it is noted at the top level of its filesystem.

All of it lies in a directory there, ``.snapbreaker/at-boot/CHECKPOINT-VOLUME``: ``plan``, and ``other``, which is
the subvolume to come before the exchange and the one that was there after it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, field
from enum import StrEnum

from snapbreaker.backend import Volume
from snapbreaker.carried import DIRECTORY, opened, parent_of
from snapbreaker.dataclass import dataclass
from snapbreaker.files import ops
from snapbreaker.files.remove import remove_tree
from snapbreaker.linux import btrfs
from snapbreaker.linux.durable import encode_json
from snapbreaker.linux.mount import detached_mount
from snapbreaker.linux.openat import open_beneath
from snapbreaker_backends.btrfs.place import mount_of

_BASE, _PLACE, OTHER, _PLAN = b".snapbreaker", b"at-boot", b"other", b"plan"


class Stage(StrEnum):
    SCHEDULED = "scheduled"
    CLEARED = "cleared"  # what was kept is as old as the checkpoint: it is gone from the new subvolume
    CARRIED = "carried"


@dataclass(frozen=True, slots=True)
class Plan:
    """``path`` of the place from the top level, the ids of the subvolume that was there and of the one to come.

    ``kept`` are the paths in it that are carried over, ``times`` the mtimes of the directories that hold them,
    ``default`` whether the filesystem's default subvolume is set too. ``sealed`` are the read-only subvolumes in
    what is carried over.
    """

    checkpoint: str
    path: str
    old: int
    new: int
    kept: list[str]
    times: dict[str, int]
    default: bool
    stage: str = Stage.SCHEDULED
    sealed: list[str] = field(default_factory=list)


def name_of(vault: str) -> bytes:
    """``CHECKPOINT-VOLUME``, of the vault ``…/CHECKPOINT/VOLUME``."""
    return os.fsencode("-".join(vault.rstrip("/").split("/")[-2:]))


def reachable(volume: Volume) -> bool:
    """Whether there is a top level to look into; where there is none, nothing was ever scheduled."""
    try:
        with top_level(volume):
            return True
    except OSError:  # not mounted, no mounts of our own in this container, Linux before 5.2
        return False


@contextmanager
def top_level(volume: Volume) -> Iterator[int]:
    with detached_mount("btrfs", mount_of(volume).source, {"subvolid": str(btrfs.TOP_LEVEL)}) as top:
        yield top


@contextmanager
def made(top: int, name: bytes) -> Iterator[int]:
    with _times_of(top):
        for path in (_BASE, _BASE + b"/" + _PLACE, _BASE + b"/" + _PLACE + b"/" + name):
            with parent_of(top, path) as (parent, last), suppress(FileExistsError):
                ops.mkdir(parent, last)
    with opened(open_beneath(top, _BASE + b"/" + _PLACE + b"/" + name, DIRECTORY)) as fd:
        yield fd


@contextmanager
def found(top: int, name: bytes) -> Iterator[int | None]:
    try:
        fd = open_beneath(top, _BASE + b"/" + _PLACE + b"/" + name, DIRECTORY)
    except FileNotFoundError:
        yield None
        return
    with opened(fd):
        yield fd


def names(top: int) -> list[bytes]:
    try:
        with opened(open_beneath(top, _BASE + b"/" + _PLACE, DIRECTORY)) as fd:
            return sorted(map(os.fsencode, os.listdir(fd)))
    except FileNotFoundError:
        return []


def remove_all(top: int, own: int, name: bytes) -> None:
    """The plan goes last: what is left without one was never in place."""
    with opened(os.open(".", DIRECTORY, dir_fd=own)) as again:  # which knows of names that came since
        names = sorted(map(os.fsencode, os.listdir(again)), key=lambda one: one == _PLAN)
    for each in names:
        remove_tree(own, each)
    with _times_of(top):
        with opened(open_beneath(top, _BASE + b"/" + _PLACE, DIRECTORY)) as fd:
            ops.rmdir(fd, name)
        with suppress(OSError), parent_of(top, _BASE + b"/" + _PLACE) as (base, place):
            os.rmdir(place, dir_fd=base)
            os.rmdir(_BASE, dir_fd=top)


@contextmanager
def _times_of(fd: int) -> Iterator[None]:
    """The mtime of the directory ``fd`` is afterwards what it was."""
    before = os.fstat(fd)
    yield
    if os.fstat(fd).st_mtime_ns != before.st_mtime_ns:
        os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))


def read(own: int) -> Plan | None:
    try:
        with opened(os.open(_PLAN, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=own)) as fd:
            return Plan(**json.loads(os.read(fd, os.fstat(fd).st_size)))
    except FileNotFoundError:
        return None


def write(own: int, plan: Plan) -> None:
    new = _PLAN + b".new"
    with suppress(FileNotFoundError):
        ops.unlink(own, new)
    with opened(ops.create(own, new)) as fd:
        ops.write(fd, encode_json(asdict(plan)))
        ops.fsync(fd)
    ops.replace(own, new, _PLAN)
    ops.fsync(own)


def identity_of(own: int, name: bytes) -> int:
    """0 where it is not there."""
    try:
        with opened(os.open(name, DIRECTORY, dir_fd=own)) as fd:
            return btrfs.subvolume_info(fd).id
    except FileNotFoundError:
        return 0
