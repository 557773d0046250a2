"""Why a logical volume cannot have a snapshot, or not now, and what helps. Raise CheckpointError, OSError."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache as once

from snapbreaker import commands
from snapbreaker.backend import Reason
from snapbreaker.linux import device_mapper
from snapbreaker.report.wording import size_text
from snapbreaker_backends.lvm import logical_volume
from snapbreaker_backends.lvm.logical_volume import LogicalVolume


def of_volume(origin: LogicalVolume, least: int) -> Iterator[Reason]:
    """``least`` bytes in free extents are what a snapshot needs of a volume that is not thin."""
    yield from of_state(origin)
    if origin.is_thin:
        return
    if origin.attributes[:1] in tuple("sS"):
        yield Reason(f"{origin.path} is a snapshot itself")
    yield from _of_type(origin)
    if origin.free < least:
        yield no_room(origin)
    if not _has_target("snapshot", "dm_snapshot"):
        yield Reason("this kernel has no snapshot target", "modprobe dm_snapshot")


def of_state(origin: LogicalVolume) -> Iterator[Reason]:
    """Why nothing can be made beside it now."""
    if origin.group_attributes[:1] != "w":
        yield Reason(f"the group {origin.group} is read-only")
    if "p" in (origin.group_attributes[3:4], origin.attributes[8:9]):
        yield Reason(f"a physical volume of {origin.group} is missing", f"vgs {origin.group}; pvs")
    if origin.attributes[:1] == "O":
        yield Reason(f"a snapshot is being merged into {origin.path}", "wait until `lvs` shows it no more")
    if origin.is_thin:
        yield from _of_pool(origin)


def no_room(origin: LogicalVolume) -> Reason:
    return Reason(
        f"the group {origin.group} has {size_text(origin.free)} free: too little for a snapshot of {origin.path}",
        f"vgextend {origin.group} DEVICE, or shrink another volume",
    )


def _of_pool(origin: LogicalVolume) -> Iterator[Reason]:
    pool = f"{origin.group}/{origin.pool}"
    device = logical_volume.pool_of(origin)
    if device is None:
        yield Reason(f"the pool {pool} is not active", f"lvchange -ay {pool}")
        return
    kind, said = device_mapper.status(device.name)
    words = said.split()
    if kind != "thin-pool" or "Fail" in words or "Error" in words:
        yield Reason(f"the pool {pool} has failed: {said}", "lvs -a; lvconvert --repair")
    elif "out_of_data_space" in words or "ro" in words:
        yield Reason(f"the pool {pool} is full", f"lvextend {pool}")


def _of_type(origin: LogicalVolume) -> Iterator[Reason]:
    """What lvcreate(8) of lvm 2.03.16 refuses itself, or breaks off in its middle."""
    if origin.type == "cache" and origin.pool.endswith("_cvol"):
        yield Reason(
            f"the cache of {origin.path} is a cachevol: lvcreate makes no snapshot of it while it is in use",
            "have a cache-pool instead: lvconvert --cachepool",
        )
    if origin.type.startswith("raid") and logical_volume.has_integrity(origin):
        yield Reason(f"{origin.path} is RAID with integrity, of which lvm makes no snapshots")


@once
def _has_target(name: str, module: str) -> bool:
    """Whether device-mapper knows it, or a module could bring it."""
    if os.path.isdir(f"/sys/module/{module}"):
        return True
    done = commands.run(["modprobe", "--dry-run", "--quiet", module], check=False)
    return done.status == 0
