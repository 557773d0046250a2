"""What is to take a volume's place at boot, as it is noted at the top level of its filesystem.

All of it lies in a directory there, ``.snapbreaker/at-boot/CHECKPOINT-VOLUME``: ``plan``, and ``other``, which is
the subvolume to come before the exchange and the one that was there after it.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, field
from enum import StrEnum

from snapbreaker.backend import Volume
from snapbreaker.carried import DIRECTORY, opened, parent_of
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError
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
    """Whether there is a top level to look into; else nothing was ever scheduled. Raises OSError."""
    try:
        source = mount_of(volume).source
    except FileNotFoundError:
        return False
    try:
        with top_level(volume):
            return True
    except OSError as error:
        # No mounts of our own in this container, nor its devices; Linux before 5.2.
        if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS) or not os.path.exists(source):
            return False
        raise


@contextmanager
def top_level(volume: Volume) -> Iterator[int]:
    with detached_mount("btrfs", mount_of(volume).source, {"subvolid": str(btrfs.TOP_LEVEL)}) as top:
        yield top


@contextmanager
def made(top: int, name: bytes) -> Iterator[int]:
    """Raises CheckpointError where the directory for all plans is somebody else's."""
    with _times_of(top):
        for path in (_BASE, _BASE + b"/" + _PLACE, _BASE + b"/" + _PLACE + b"/" + name):
            with parent_of(top, path) as (parent, last), suppress(FileExistsError):
                ops.mkdir(parent, last)
    with found(top, name) as fd:
        if fd is None:
            raise CheckpointError(
                ".snapbreaker at the top level of the filesystem is not a directory of ours",
                "mount -o subvolid=5, and remove it",
            )
        yield fd


@contextmanager
def found(top: int, name: bytes) -> Iterator[int | None]:
    with _plans(top) as plans:
        fd = -1
        with suppress(FileNotFoundError):
            fd = fd if plans is None else open_beneath(plans, name, DIRECTORY)
        if fd < 0:
            yield None
            return
        with opened(fd):
            yield fd


def names(top: int) -> list[bytes]:
    with _plans(top) as plans:
        return [] if plans is None else sorted(map(os.fsencode, os.listdir(plans)))


@contextmanager
def _plans(top: int) -> Iterator[int | None]:
    """The directory that holds all of them. Where others can write to the top level, they may have made it: then
    it says nothing, or it could have us boot, remove and copy what they like.
    """
    plans = -1
    with suppress(FileNotFoundError, NotADirectoryError), opened(_directory(top, _BASE)) as base:
        facts = os.fstat(base)
        if facts.st_uid == os.geteuid() and not facts.st_mode & 0o022:
            plans = _directory(base, _PLACE)
    if plans < 0:
        yield None
        return
    with opened(plans):
        yield plans


def _directory(top: int, path: bytes) -> int:
    """Raises NotADirectoryError also where a symbolic link is in the way."""
    try:
        return open_beneath(top, path, DIRECTORY)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
        raise


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
    """0 where no directory is there."""
    try:
        with opened(os.open(name, DIRECTORY, dir_fd=own)) as fd:
            return btrfs.subvolume_info(fd).id
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return 0
        raise
