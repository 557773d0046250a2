"""Another subvolume takes a volume's place at the next boot: the checkpoint, with what is kept carried over.

The exchange is one rename(2) with RENAME_EXCHANGE, atomic also on disk: at every instant one whole root has the
name that is mounted. What runs goes on with the old one until the reboot. What is kept (logs, records, vaults,
what --keep names) is copied from there early in the next boot, ahead of all that writes: only then it is complete.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from snapbreaker import carried
from snapbreaker.backend import Stored, Volume
from snapbreaker.carried import DIRECTORY, opened, parent_of
from snapbreaker.errors import CheckpointError
from snapbreaker.files import ops
from snapbreaker.linux import btrfs
from snapbreaker.linux.openat import open_beneath
from snapbreaker_backends.btrfs.carry import carry
from snapbreaker_backends.btrfs.place import default_of, mount_again, place_of
from snapbreaker_backends.btrfs.plan import (
    OTHER,
    Plan,
    Stage,
    found,
    identity_of,
    made,
    name_of,
    names,
    reachable,
    read,
    remove_all,
    top_level,
    write,
)


def schedule(stored: Stored, snapshots: str) -> None:
    """Have the checkpoint in place of the volume from the next boot on. Idempotent.

    What an earlier boot had displaced for it goes. Raises CheckpointError, OSError.
    """
    volume = stored.volume
    remove(volume, stored.vault)
    place = place_of(volume)
    with top_level(volume) as top, made(top, name_of(stored.vault)) as own:
        new = _build(stored, snapshots, own)
        kept = carried.kept_of(stored.policy)
        with opened(os.open(OTHER, DIRECTORY, dir_fd=own)) as other:
            times = carried.times_around(other, kept)
        plan = Plan(
            stored.data["checkpoint"],
            os.fsdecode(place.path),
            place.identity,
            new,
            kept,
            times,
            default_of(volume) == place.identity,
        )
        write(own, plan)
        btrfs.sync(own)
        _put_in_place(volume, top, own, plan, plan.new)


def mount_next(volume: Volume, vault: str, point: str) -> None:
    """Mount at ``point`` what takes the volume's place: what runs shows its own, other name by now.

    Raises OSError, ToolError.
    """
    with top_level(volume) as top, found(top, name_of(vault)) as own:
        plan = None if own is None else read(own)
        if plan is None:
            raise FileNotFoundError(errno.ENOENT, "nothing is to take its place", volume.root)
        mount_again(volume, plan.path, point)


def call_off(volume: Volume, vault: str) -> None:
    """Leave everything as it is at the next boot, too. Idempotent.

    What is displaced stays where somebody else has taken its place by now. Raises CheckpointError after that boot:
    it is too late then. Raises OSError.
    """
    with top_level(volume) as top, found(top, name_of(vault)) as own:
        if own is None:
            return
        plan = read(own)
        if plan is not None:
            if place_of(volume).identity == plan.new:
                raise CheckpointError(f"{volume.root} was reverted at boot already")
            _give_back(volume, top, own, plan)
            if identity_of(own, OTHER) == plan.old:
                return
        remove_all(top, own, name_of(vault))


def reverted(volume: Volume, vault: str) -> bool:
    """Whether the machine runs on the checkpoint by now. Raises OSError."""
    with top_level(volume) as top, found(top, name_of(vault)) as own:
        plan = None if own is None else read(own)
        return plan is not None and place_of(volume).identity == plan.new


def carry_over(volume: Volume) -> str:
    """After the boot, before anything is written: bring what is kept from the old subvolume, once.

    Returns the checkpoint that was reverted to, empty where none was. Cut off, it is done again. Raises OSError,
    ToolError.
    """
    if not reachable(volume):
        return ""
    identity = place_of(volume).identity
    with top_level(volume) as top:
        for name in names(top):
            with found(top, name) as own:
                plan = None if own is None else read(own)
                if own is not None and plan is not None and plan.new == identity:
                    if plan.stage != Stage.CARRIED:
                        _put_in_place(volume, top, own, plan, plan.new)
                        carry(top, own, plan)
                    return plan.checkpoint
    return ""


def remove(volume: Volume, vault: str) -> None:
    """The checkpoint is given up: so is the subvolume that was displaced. Idempotent.

    Raises CheckpointError where that is what runs, or holds what is kept and has not come over yet. OSError.
    """
    if not reachable(volume):
        return
    with top_level(volume) as top, found(top, name_of(vault)) as own:
        if own is None:
            return
        plan, identity = read(own), place_of(volume).identity
        if plan is not None and identity != plan.new:
            _give_back(volume, top, own, plan)
        elif plan is not None and plan.stage != Stage.CARRIED:
            raise CheckpointError(
                f"{volume.root} was replaced at boot, and what is kept of it has not come over yet",
                "run `snapbreaker recover`",
            )
        if identity_of(own, OTHER) == identity:
            raise CheckpointError(
                f"{volume.root} runs on what checkpoint {name_of(vault).decode()} had displaced",
                "boot what has its name by now",
            )
        remove_all(top, own, name_of(vault))


def _give_back(volume: Volume, top: int, own: int, plan: Plan) -> None:
    """Its place to the old subvolume, unless the machine has run on the new one: that is what counts since."""
    if plan.stage == Stage.CLEARED:
        raise CheckpointError(
            f"what is kept is half on its way into the subvolume that replaces {volume.root}",
            f"boot that one (subvol={plan.path}), and run `snapbreaker recover`",
        )
    if plan.stage == Stage.SCHEDULED:
        _put_in_place(volume, top, own, plan, plan.old)
    elif place_of(volume).identity == plan.old:
        raise CheckpointError(
            f"{volume.root} runs on what checkpoint {plan.checkpoint} had displaced",
            f"boot what was run on since: subvol={plan.path}",
        )


def _build(stored: Stored, snapshots: str, own: int) -> int:
    """The subvolume to come: a writable snapshot of each snapshot, put together. Returns its id."""
    records = stored.data["snapshots"]
    for number, record in enumerate(records):
        path = os.fsencode(record["path"])
        with opened(os.open(os.path.join(snapshots, str(number)), DIRECTORY)) as source:
            if not path:
                ops.snapshot_subvolume(source, own, OTHER)
                continue
            with parent_of(own, OTHER + b"/" + path) as (parent, name):
                before = os.fstat(parent)
                with suppress(FileNotFoundError):
                    ops.rmdir(parent, name)  # the empty stub that stands for it
                ops.snapshot_subvolume(source, parent, name)
                ops.set_mtime(parent, before.st_mtime_ns, before.st_atime_ns)
    for record in records:
        if record["read_only"]:
            with opened(open_beneath(own, OTHER + b"/" + os.fsencode(record["path"]), DIRECTORY)) as fd:
                ops.set_subvolume_read_only(fd, True)
    return identity_of(own, OTHER)


def _put_in_place(volume: Volume, top: int, own: int, plan: Plan, wanted: int) -> None:
    """The subvolume with the id ``wanted``, of the two. Idempotent, and on disk when this returns.

    Where neither of them is any more, by name or by default, somebody else has replaced it since: that stays.
    """
    other = plan.old if wanted == plan.new else plan.new
    if plan.default and default_of(volume) == other:
        ops.set_default_subvolume(top, wanted)
    with suppress(FileNotFoundError), parent_of(top, os.fsencode(plan.path)) as (parent, name):
        if identity_of(own, OTHER) == wanted and identity_of(parent, name) == other:
            ops.exchange(own, OTHER, parent, name)
    btrfs.sync(own)
