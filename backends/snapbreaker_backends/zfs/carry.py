"""After the boot: what is kept comes over from the datasets that were displaced; snapshots and names follow."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace

from snapbreaker import carried
from snapbreaker.backend import Volume
from snapbreaker.carried import DIRECTORY, opened
from snapbreaker.files.remove import remove_tree
from snapbreaker.linux import writeback
from snapbreaker_backends.zfs import datasets, names, plan
from snapbreaker_backends.zfs.exchange import put_in_place
from snapbreaker_backends.zfs.names import CANMOUNT, IN_PLACE_OF, Names
from snapbreaker_backends.zfs.plan import Plan, Stage

_VAULTS = ".snapbreaker"


def carry_over(volume: Volume) -> None:
    """Ahead of all that writes, once. Cut off, it is done again. Raises OSError, SnapbreakerError."""
    for noted in plan.plans(volume):
        if noted.stage != Stage.CARRIED:
            own = names.names_of(volume, noted.checkpoint)
            if own is not None and not own.inside:
                put_in_place(own)
            noted = _bring_kept(volume, noted)
            if own is not None and not own.inside:
                _bring_others(own)
                _take_over(own, noted.checkpoint)
            plan.write(volume.mountpoint, replace(noted, stage=Stage.CARRIED))


def _bring_kept(volume: Volume, noted: Plan) -> Plan:
    """Both by mounts of their own: something else may be mounted on what is kept."""
    mounted = datasets.mount_of(volume).source
    with plan.top_of(mounted, writable=True) as new, plan.top_of(noted.old) as old:
        kept = carried.there_in(old, new, noted.kept)
        if noted.stage == Stage.SCHEDULED:
            carried.clear(new, [path for path in noted.kept if path != _VAULTS])
            _clear_vaults(new, noted.checkpoint)
            writeback.syncfs(new)
            noted = replace(noted, stage=Stage.CLEARED)
            plan.write(volume.mountpoint, noted)
        carried.copy(old, new, kept)
        carried.set_times(new, noted.times)
        writeback.syncfs(new)
    return noted


def _clear_vaults(new: int, checkpoint: str) -> None:
    """All but the plan."""
    with suppress(FileNotFoundError), opened(os.open(_VAULTS, DIRECTORY, dir_fd=new)) as base:
        for name in os.listdir(base):
            if name != plan.DIRECTORY_NAME:
                remove_tree(base, os.fsencode(name))
        with opened(os.open(plan.DIRECTORY_NAME, DIRECTORY, dir_fd=base)) as directory:
            for name in os.listdir(directory):
                if name != checkpoint:
                    os.unlink(name, dir_fd=directory)


def _bring_others(own: Names) -> None:
    """Datasets and volumes that the checkpoint knows nothing of, or that are kept: they are there as before."""
    moved = ""
    for dataset in names.below(own.old, "filesystem,volume"):
        inside = dataset[len(own.old) :]
        if not (moved and inside.startswith(moved + "/")) and not names.exists(own.place + inside):
            names.rename(dataset, own.place + inside)
            moved = inside


def _take_over(own: Names, checkpoint: str) -> None:
    """The snapshots up to the checkpoint's own, and how each is mounted."""
    for dataset in names.below(own.place):
        inside = dataset[len(own.place) :]
        if names.value(dataset, "origin") == f"{own.old}{inside}@{checkpoint}":
            names.zfs("promote", dataset)
    listed = names.zfs("get", "-Hrs", "local", "-t", "filesystem", "-o", "name,value", CANMOUNT, own.place)
    for dataset, wanted in (line.split("\t") for line in listed.splitlines()):
        if names.value(dataset, "canmount") != wanted:
            names.zfs("set", f"canmount={wanted}", dataset)
        names.zfs("inherit", CANMOUNT, dataset)
    names.zfs("inherit", IN_PLACE_OF, own.place)
