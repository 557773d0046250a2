"""A checkpoint takes the root's place at the next boot: clones of its snapshots, under the names that are mounted.

ZFS cannot exchange two names: the tree that runs is renamed away, and the new one gets its name. Between the two
the power may go; what mends that is in the initramfs (``place.FIRST_AID``). A pool's ``bootfs`` is one step, and
comes first. What runs goes on with the old tree until the reboot, whatever that is called.
"""

from __future__ import annotations

from snapbreaker import carried
from snapbreaker.backend import Stored, Volume
from snapbreaker.errors import CheckpointError, ToolError
from snapbreaker_backends.zfs import datasets, names, plan
from snapbreaker_backends.zfs.names import CANMOUNT, IN_PLACE_OF, Names
from snapbreaker_backends.zfs.plan import Plan


def schedule(stored: Stored) -> None:
    """Have the checkpoint in place of the volume from the next boot on. Idempotent.

    Datasets below the root's come first: it is with the root's that all are put in place.
    Raises CheckpointError, OSError.
    """
    own = _names(stored.volume, stored.data["name"])
    try:
        _build(own, stored.data["name"])
    except ToolError as error:
        names.destroy([own.new])
        raise CheckpointError(f"{own.root} cannot be cloned: {error.stderr.strip()}") from error
    kept = carried.kept_of(stored.policy)
    with plan.top_of(own.new + own.inside, writable=True) as top:
        times = carried.times_around(top, kept)
        plan.write(f"/proc/self/fd/{top}", Plan(stored.data["name"], own.old + own.inside, kept, times))
    if not own.inside:
        _forbid_mounting(own)
        put_in_place(own)


def call_off(volume: Volume, checkpoint: str) -> None:
    """Leave everything as it is at the next boot, too. Idempotent.

    Raises CheckpointError after that boot: it is too late then. Raises OSError.
    """
    own = names.names_of(volume, checkpoint)
    if own is None or own.inside:
        return
    if reverted(volume, checkpoint):
        raise CheckpointError(f"{volume.root} was reverted at boot already")
    if own.has_moved:
        if names.exists(own.place):
            names.rename(own.place, own.new)
        names.rename(own.old, own.place)
    coming = names.below(own.new)
    if coming and names.boot_dataset(datasets.pool_of(own.place)) == own.new:
        names.boot_from(own.place)
    for dataset in coming:
        _set_canmount(own.place + dataset[len(own.new) :], names.value(dataset, CANMOUNT))
    names.destroy([own.new])


def reverted(volume: Volume, checkpoint: str) -> bool:
    """Whether the machine runs on the checkpoint by now. Raises OSError."""
    return plan.plan_of(volume, checkpoint) is not None


def remove(volume: Volume, checkpoint: str) -> None:
    """The checkpoint is given up: so is what it displaced. Idempotent. Raises CheckpointError, OSError.

    What runs stays: before the boot that is what was to be displaced.
    """
    noted = plan.plan_of(volume, checkpoint)
    if noted is None:
        call_off(volume, checkpoint)
        return
    if noted.stage != plan.Stage.CARRIED:
        raise CheckpointError(
            f"{volume.root} was replaced at boot, and what is kept of it has not come over yet",
            "run `snapbreaker recover`",
        )
    own = names.names_of(volume, checkpoint)
    if own is not None and not own.inside and (left := names.destroy([own.old])):
        raise CheckpointError(
            f"what {checkpoint} displaced has snapshots, clones or volumes of others: {', '.join(left)}",
            f"zfs list -rt all {own.old}; once nobody needs them: zfs destroy -r {own.old}",
        )
    plan.remove(volume, checkpoint)


def put_in_place(own: Names) -> None:
    """From either side of the boot, from wherever it was cut off."""
    pool = datasets.pool_of(own.place)
    if not names.exists(own.new):
        return
    if names.boot_dataset(pool) in (own.place, own.old):
        names.boot_from(own.new)
    if not names.exists(own.old):
        names.rename(own.place, own.old)
    names.rename(own.new, own.place)


def _names(volume: Volume, checkpoint: str) -> Names:
    own = names.names_of(volume, checkpoint)
    if own is None:
        raise CheckpointError(f"{volume.root} is no part of the root")
    return own


def _build(own: Names, checkpoint: str) -> None:
    """The volume's dataset in the tree to come, and those that it lies in. Raises ToolError."""
    steps = own.inside.split("/")
    for inside in ("/".join(steps[:end]) for end in range(1, len(steps) + 1)):
        source, new = own.root + inside, own.new + inside
        if names.exists(new):
            continue
        canmount = names.value(source, "canmount")
        options = [*names.own_properties(source), "-o", f"{CANMOUNT}={canmount}"]
        options += [] if inside else ["-o", f"{IN_PLACE_OF}={own.place}"]
        if names.exists(f"{source}@{checkpoint}"):
            names.zfs("clone", *options, "-o", "canmount=noauto", f"{source}@{checkpoint}", new)
        else:  # it only holds others
            names.zfs("create", *options, "-o", "canmount=off", new)


def _forbid_mounting(own: Names) -> None:
    """Two datasets would want the same mount points. What is mounted by name in the initramfs is, all the same."""
    for dataset in names.below(own.new):
        _set_canmount(own.root + dataset[len(own.new) :], "noauto")


def _set_canmount(dataset: str, wanted: str) -> None:
    """Unless it is never mounted in any case."""
    if names.value(dataset, "canmount") not in ("off", wanted):
        names.zfs("set", f"canmount={wanted}", dataset)
