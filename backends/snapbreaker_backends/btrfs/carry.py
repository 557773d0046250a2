"""After the boot: what is kept comes from the subvolume that was displaced to the one in its place."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from snapbreaker import carried
from snapbreaker.carried import DIRECTORY, opened, parent_of
from snapbreaker.files import ops
from snapbreaker.linux import btrfs
from snapbreaker.linux.btrfs import Nested
from snapbreaker.linux.openat import open_beneath
from snapbreaker_backends.btrfs.enumeration import nested_subvolumes
from snapbreaker_backends.btrfs.plan import OTHER, Plan, Stage, write


def carry(top: int, own: int, plan: Plan) -> None:
    """What is kept, from the old subvolume to the one in its place."""
    with (
        opened(open_beneath(top, os.fsencode(plan.path), DIRECTORY)) as new,
        opened(os.open(OTHER, DIRECTORY, dir_fd=own)) as old,
    ):
        if (btrfs.subvolume_info(old).id, btrfs.subvolume_info(new).id) != (plan.old, plan.new):
            raise OSError(errno.ESTALE, "another subvolume has taken the place of what was booted", plan.path)
        kept = carried.there_in(old, new, plan.kept)
        if plan.stage == Stage.SCHEDULED:
            carried.clear(new, plan.kept)
            btrfs.sync(new)
            sealed = [os.fsdecode(one.path) for one in _nested(old, kept) if one.read_only]
            plan = replace(plan, stage=Stage.CLEARED, sealed=sealed)
            write(own, plan)
        _move_subvolumes(old, new, kept)
        carried.copy(old, new, kept)
        for sealed_path in plan.sealed:
            with opened(open_beneath(new, os.fsencode(sealed_path), DIRECTORY)) as fd:
                ops.set_subvolume_read_only(fd, True)
        carried.set_times(new, plan.times)
        btrfs.sync(new)
        write(own, replace(plan, stage=Stage.CARRIED))


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
        with parent_of(old, one.path) as (source, name), parent_of(new, one.path) as (target, _):
            if one.read_only:  # such a one goes to no other directory
                with opened(os.open(name, DIRECTORY, dir_fd=source)) as fd:
                    ops.set_subvolume_read_only(fd, False)
            with suppress(FileNotFoundError):
                ops.rmdir(target, name)  # the empty stub that stands for one that is kept itself
            ops.rename(source, name, target, name)


def _make_directories(top: int, path: bytes) -> None:
    """Those above ``path``; ``carried.copy`` makes them what they are."""
    for end in (index for index, octet in enumerate(path) if octet == 0x2F):
        with parent_of(top, path[:end]) as (parent, name), suppress(FileExistsError):
            ops.mkdir(parent, name)
