"""Another subvolume takes a volume's place at the next boot: the checkpoint, with what is kept carried over.

All of it lies in a directory at the top level, ``.snapbreaker/at-boot/CHECKPOINT-VOLUME``: ``plan``, and
``other``, which is the subvolume to come before the exchange and the one that was there after it. That is one
rename(2) with RENAME_EXCHANGE, atomic also on disk: at every instant one whole root has the name that is mounted.
What runs goes on with the old one until the reboot. What is kept (logs, records, vaults, what --keep names) is
copied from there early in the next boot, before anything writes to it: only then it is complete.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, field, replace
from enum import StrEnum

from snapbreaker.backend import Stored, Volume
from snapbreaker.commands import run
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError
from snapbreaker.files import ops
from snapbreaker.files.policy import PathClass
from snapbreaker.files.remove import remove_tree
from snapbreaker.linux import btrfs
from snapbreaker.linux.btrfs import Nested
from snapbreaker.linux.durable import encode_json
from snapbreaker.linux.mount import detached_mount
from snapbreaker.linux.openat import open_beneath
from snapbreaker_backends.btrfs.enumeration import nested_subvolumes
from snapbreaker_backends.btrfs.place import default_of, mount_of, place_of

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BASE, _PLACE, _OTHER, _PLAN = b".snapbreaker", b"at-boot", b"other", b"plan"


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


def schedule(stored: Stored, snapshots: str) -> None:
    """Have the checkpoint in place of the volume from the next boot on. Idempotent. Raises OSError."""
    volume = stored.volume
    call_off(volume, stored.vault)
    place = place_of(volume)
    with _top(volume) as top, _made(top, _name(stored.vault)) as own:
        new = _build(stored, snapshots, own)
        kept = [os.fsdecode(path) for path, cls in stored.policy.classes if path and cls is not PathClass.RESTORE]
        kept.append(".snapbreaker")
        plan = Plan(
            stored.data["checkpoint"],
            os.fsdecode(place.path),
            place.identity,
            new,
            sorted(set(kept)),
            _times(own, kept),
            default_of(volume) == place.identity,
        )
        _write(own, plan)
        btrfs.sync(own)
        _put_in_place(top, own, plan, plan.new)


def call_off(volume: Volume, vault: str) -> None:
    """Leave everything as it is at the next boot, too. Idempotent.

    Raises CheckpointError after that boot: it is too late then. Raises OSError.
    """
    with _top(volume) as top, _found(top, _name(vault)) as own:
        if own is None:
            return
        plan = _read(own)
        if plan is not None:
            if place_of(volume).identity == plan.new:
                raise CheckpointError(f"{volume.root} was reverted at boot already")
            _put_in_place(top, own, plan, plan.old)
        _remove(top, own, _name(vault))


def reverted(volume: Volume, vault: str) -> bool:
    """Whether the machine runs on the checkpoint by now. Raises OSError."""
    with _top(volume) as top, _found(top, _name(vault)) as own:
        plan = None if own is None else _read(own)
        return plan is not None and place_of(volume).identity == plan.new


def carry_over(volume: Volume) -> str:
    """After the boot, before anything is written: bring what is kept from the old subvolume, once.

    Returns the checkpoint that was reverted to, empty where none was. Cut off, it is done again. Raises OSError,
    ToolError.
    """
    identity = place_of(volume).identity
    with _top(volume) as top:
        for name in _names(top):
            with _found(top, name) as own:
                plan = None if own is None else _read(own)
                if own is not None and plan is not None and plan.new == identity:
                    if plan.stage != Stage.CARRIED:
                        _put_in_place(top, own, plan, plan.new)
                        _carry(top, own, plan)
                    return plan.checkpoint
    return ""


def remove(volume: Volume, vault: str) -> None:
    """The checkpoint is given up: so is the subvolume that was displaced. Idempotent. Raises OSError.

    The one that the machine runs on stays: before the boot that is the one to be displaced.
    """
    if not reverted(volume, vault):
        call_off(volume, vault)
        return
    with _top(volume) as top, _found(top, _name(vault)) as own:
        if own is not None:
            _remove(top, own, _name(vault))


# what schedule and call_off do


def _build(stored: Stored, snapshots: str, own: int) -> int:
    """The subvolume to come: a writable snapshot of each snapshot, put together. Returns its id."""
    made = stored.data["snapshots"]
    for number, record in enumerate(made):
        path = os.fsencode(record["path"])
        with _opened(os.open(os.path.join(snapshots, str(number)), _DIRECTORY)) as source:
            if not path:
                ops.snapshot_subvolume(source, own, _OTHER)
                continue
            with _parent(own, _OTHER + b"/" + path) as (parent, name):
                before = os.fstat(parent)
                with suppress(FileNotFoundError):
                    ops.rmdir(parent, name)  # the empty stub that stands for it
                ops.snapshot_subvolume(source, parent, name)
                ops.set_mtime(parent, before.st_mtime_ns, before.st_atime_ns)
    for record in made:
        if record["read_only"]:
            with _opened(open_beneath(own, _OTHER + b"/" + os.fsencode(record["path"]), _DIRECTORY)) as fd:
                ops.set_subvolume_read_only(fd, True)
    return _identity(own, _OTHER)


def _times(own: int, kept: Iterable[str]) -> dict[str, int]:
    """The mtimes of the directories that hold what is kept, as the checkpoint has them."""
    found = {}
    for path in {path.rpartition("/")[0] for path in kept}:
        inner = _OTHER + b"/" + os.fsencode(path) if path else _OTHER
        if _exists(own, inner):
            with _opened(open_beneath(own, inner, _DIRECTORY)) as fd:
                found[path] = os.fstat(fd).st_mtime_ns
    return found


def _put_in_place(top: int, own: int, plan: Plan, wanted: int) -> None:
    """The subvolume with the id ``wanted``, of the two. Idempotent, and on disk when this returns."""
    with _parent(top, os.fsencode(plan.path)) as (parent, name):
        if plan.default:
            ops.set_default_subvolume(top, wanted)
        if _identity(own, _OTHER) == wanted:
            ops.exchange(own, _OTHER, parent, name)
        btrfs.sync(own)


# what carry_over does


def _carry(top: int, own: int, plan: Plan) -> None:
    """What is kept, from the old subvolume to the one in its place."""
    with (
        _opened(open_beneath(top, os.fsencode(plan.path), _DIRECTORY)) as new,
        _opened(os.open(_OTHER, _DIRECTORY, dir_fd=own)) as old,
    ):
        # Not where the directory that would hold it is no part of the checkpoint.
        kept = [path for path in map(os.fsencode, plan.kept) if _exists(old, path) and _has_parent(new, path)]
        if plan.stage == Stage.SCHEDULED:
            for stale in map(os.fsencode, plan.kept):
                if _exists(new, stale):
                    _clear(new, stale)
            btrfs.sync(new)
            sealed = [os.fsdecode(one.path) for one in _nested(old, kept) if one.read_only]
            plan = replace(plan, stage=Stage.CLEARED, sealed=sealed)
            _write(own, plan)
        _move_subvolumes(old, new, kept)
        for path in kept:
            _copy(old, new, path)
        for sealed_path in plan.sealed:
            with _opened(open_beneath(new, os.fsencode(sealed_path), _DIRECTORY)) as fd:
                ops.set_subvolume_read_only(fd, True)
        for directory, mtime in plan.times.items():
            with _opened(open_beneath(new, os.fsencode(directory), _DIRECTORY)) as fd:
                ops.set_mtime(fd, mtime, os.fstat(fd).st_atime_ns)
        btrfs.sync(new)
        _write(own, replace(plan, stage=Stage.CARRIED))


def _clear(new: int, path: bytes) -> None:
    """All but the directory itself, since something may be mounted there; so may be on what is in it."""
    with _parent(new, path) as (parent, name):
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            remove_tree(parent, name)
            return
        with _opened(os.open(name, _DIRECTORY, dir_fd=parent)) as fd:
            for inner in map(os.fsencode, os.listdir(fd)):
                try:
                    remove_tree(fd, inner)
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise


def _nested(old: int, kept: Sequence[bytes]) -> list[Nested]:
    """The subvolumes in what is kept, those first that hold others."""
    return [
        one
        for one in nested_subvolumes(old, lambda path: False)
        if any(one.path == path or one.path.startswith(path + b"/") for path in kept)
    ]


def _move_subvolumes(old: int, new: int, kept: Sequence[bytes]) -> None:
    """They are moved, not copied: snapshots are what they are by sharing. ``plan.sealed`` says which to seal."""
    nested = _nested(old, kept)
    outer = [one for one in nested if not any(one.path.startswith(other.path + b"/") for other in nested)]
    for one in outer:
        _make_directories(new, one.path)
        with _parent(old, one.path) as (source, name), _parent(new, one.path) as (target, _):
            if one.read_only:  # such a one goes to no other directory
                with _opened(os.open(name, _DIRECTORY, dir_fd=source)) as fd:
                    ops.set_subvolume_read_only(fd, False)
            ops.rename(source, name, target, name)


def _make_directories(top: int, path: bytes) -> None:
    """Those above ``path``; ``_copy`` makes them what they are."""
    for end in (index for index, octet in enumerate(path) if octet == 0x2F):
        with _parent(top, path[:end]) as (parent, name), suppress(FileExistsError):
            ops.mkdir(parent, name)


def _copy(old: int, new: int, path: bytes) -> None:
    """With all that cp(1) knows of, without the data where the filesystem can share them."""
    if _exists(old, path):
        places = [f"/proc/{os.getpid()}/fd/{fd}/{os.fsdecode(path)}" for fd in (old, new)]
        run(["cp", "--archive", "--reflink=auto", "--remove-destination", "--no-target-directory", "--", *places])


def _exists(top: int, path: bytes) -> bool:
    try:
        os.close(open_beneath(top, path, os.O_PATH | os.O_NOFOLLOW))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _has_parent(top: int, path: bytes) -> bool:
    return _exists(top, path.rpartition(b"/")[0])


# where it lies


def _name(vault: str) -> bytes:
    """``CHECKPOINT-VOLUME``, of the vault ``…/CHECKPOINT/VOLUME``."""
    return os.fsencode("-".join(vault.rstrip("/").split("/")[-2:]))


@contextmanager
def _top(volume: Volume) -> Iterator[int]:
    with detached_mount("btrfs", mount_of(volume).source, {"subvolid": str(btrfs.TOP_LEVEL)}) as top:
        yield top


@contextmanager
def _made(top: int, name: bytes) -> Iterator[int]:
    with times_of(top):
        for path in (_BASE, _BASE + b"/" + _PLACE, _BASE + b"/" + _PLACE + b"/" + name):
            with _parent(top, path) as (parent, last), suppress(FileExistsError):
                ops.mkdir(parent, last)
    with _opened(open_beneath(top, _BASE + b"/" + _PLACE + b"/" + name, _DIRECTORY)) as fd:
        yield fd


@contextmanager
def _found(top: int, name: bytes) -> Iterator[int | None]:
    try:
        fd = open_beneath(top, _BASE + b"/" + _PLACE + b"/" + name, _DIRECTORY)
    except FileNotFoundError:
        yield None
        return
    with _opened(fd):
        yield fd


def _names(top: int) -> list[bytes]:
    try:
        with _opened(open_beneath(top, _BASE + b"/" + _PLACE, _DIRECTORY)) as fd:
            return sorted(map(os.fsencode, os.listdir(fd)))
    except FileNotFoundError:
        return []


def _remove(top: int, own: int, name: bytes) -> None:
    """The plan goes last: what is left without one was never in place."""
    with _opened(os.open(".", _DIRECTORY, dir_fd=own)) as again:  # which knows of names that came since
        names = sorted(map(os.fsencode, os.listdir(again)), key=lambda one: one == _PLAN)
    for each in names:
        remove_tree(own, each)
    with times_of(top):
        with _opened(open_beneath(top, _BASE + b"/" + _PLACE, _DIRECTORY)) as fd:
            ops.rmdir(fd, name)
        with suppress(OSError), _parent(top, _BASE + b"/" + _PLACE) as (base, place):
            os.rmdir(place, dir_fd=base)
            os.rmdir(_BASE, dir_fd=top)


@contextmanager
def times_of(fd: int) -> Iterator[None]:
    """The mtime of the directory ``fd`` is afterwards what it was."""
    before = os.fstat(fd)
    yield
    if os.fstat(fd).st_mtime_ns != before.st_mtime_ns:
        os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))


def _read(own: int) -> Plan | None:
    try:
        with _opened(os.open(_PLAN, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=own)) as fd:
            return Plan(**json.loads(os.read(fd, os.fstat(fd).st_size)))
    except FileNotFoundError:
        return None


def _write(own: int, plan: Plan) -> None:
    new = _PLAN + b".new"
    with suppress(FileNotFoundError):
        ops.unlink(own, new)
    with _opened(ops.create(own, new)) as fd:
        ops.write(fd, encode_json(asdict(plan)))
        ops.fsync(fd)
    ops.replace(own, new, _PLAN)
    ops.fsync(own)


def _identity(own: int, name: bytes) -> int:
    """0 where it is not there."""
    try:
        with _opened(os.open(name, _DIRECTORY, dir_fd=own)) as fd:
            return btrfs.subvolume_info(fd).id
    except FileNotFoundError:
        return 0


@contextmanager
def _parent(top: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    """The directory that holds ``path``, and its name there."""
    above, _, name = path.rpartition(b"/")
    with _opened(open_beneath(top, above, _DIRECTORY)) as fd:
        yield fd, name


@contextmanager
def _opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)
