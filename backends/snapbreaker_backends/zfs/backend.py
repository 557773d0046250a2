"""The ZFS backend: all datasets in scope in one atomic snapshot, held; they go back path by path or as a whole."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

from snapbreaker.backend import Availability, Backend, Capability, Creation, Reason, Revert, Stored, Volume
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError
from snapbreaker.files.entry import Change
from snapbreaker.files.proof import Proof
from snapbreaker.files.tree import Tree
from snapbreaker.linux.durable import read_json, sync_directory, write_json
from snapbreaker.linux.mountinfo import Mount
from snapbreaker.linux.writeback import sync_filesystem
from snapbreaker.paths import relative
from snapbreaker_backends.zfs import calls, datasets, exchange, revert
from snapbreaker_backends.zfs.carry import carry_over
from snapbreaker_backends.zfs.place import FIRST_AID, refusals
from snapbreaker_backends.zfs.plan import plans
from snapbreaker_backends.zfs.view import identity_of, open_snapshot

_NOTE = "snapshot.json"  # in the vault: the name of what create is about to make
_PROPERTY = "org.snapbreaker:checkpoint"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class ZfsBackend(Backend):
    name = "zfs"
    rank = 10
    capabilities = Capability.INSTANT | Capability.WHOLE | Capability.AT_BOOT | Capability.REVERT
    first_aid = FIRST_AID

    def availability(self, volume: Volume) -> Availability:
        if volume.fstype != "zfs":
            return Availability((Reason(f"{volume.root} lies on {volume.fstype}"),))
        return Availability(tuple(_refusals(volume)))

    def create(self, volume: Volume, creation: Creation) -> dict[str, Any]:
        return next(self.create_all([(volume, creation)]))

    def create_all(self, wanted: Sequence[tuple[Volume, Creation]]) -> Iterator[dict[str, Any]]:
        """One snapshot of each dataset; those of one pool are of one instant."""
        started = time.monotonic()
        name = f"snapbreaker-{wanted[0][1].checkpoint}-{secrets.token_hex(4)}"
        planned = [_plan(volume, creation, name) for volume, creation in wanted]
        snapshots = list(dict.fromkeys(one.snapshot for one in planned))
        way = calls.find()
        if way is None:
            raise CheckpointError("neither libzfs_core nor zfs is installed", "apt-get install zfsutils-linux")
        for pool in dict.fromkeys(map(datasets.pool_of, snapshots)):
            own = [snapshot for snapshot in snapshots if datasets.pool_of(snapshot) == pool]
            way.snapshot(own, {_PROPERTY: wanted[0][1].checkpoint})
            way.hold(own)
        for one in planned:
            yield {
                "checkpoint": wanted[0][1].checkpoint,
                "bytes": 0,
                "frozen": 0.0,
                "seconds": time.monotonic() - started,
                "proof": one.proof.as_dict(),
                "name": name,
                "inside": one.inside,
                "identity": identity_of(one.snapshot),
            }

    def open(self, stored: Stored) -> Tree:
        """The view of the snapshot; CheckpointError when it is gone."""
        data, volume = stored.data, stored.volume
        skip = [os.fsencode(relative(path, volume.root)) for path in volume.skip]
        return open_snapshot(
            _snapshots(volume, data["name"]), data["identity"], data["inside"], stored.policy, skip
        )

    def discard(self, volume: Volume, vault: str, record: str) -> None:
        """Destroy the snapshot that the vault names."""
        note = os.path.join(vault, _NOTE)
        try:
            name = read_json(note)["name"]
        except FileNotFoundError:
            return
        way = calls.find()
        if way is None:
            raise CheckpointError("neither libzfs_core nor zfs is installed", "apt-get install zfsutils-linux")
        exchange.remove(volume, name)
        revert.remove(volume, name, record)
        way.destroy(_snapshots(volume, name))
        os.unlink(note)
        sync_directory(vault)

    def mark(self, stored: Stored, octets: int) -> Revert:
        return revert.mark(stored, octets)

    def revert(self, stored: Stored, changes: Sequence[Change]) -> Revert:
        return revert.revert(stored, changes)

    def settle(self, stored: Stored) -> None:
        revert.settle(stored)

    def at_boot(self, stored: Stored) -> Availability:
        return Availability(tuple(refusals(stored)))

    def schedule(self, stored: Stored) -> None:
        exchange.schedule(stored)

    def call_off(self, stored: Stored) -> None:
        exchange.call_off(stored.volume, stored.data["name"])

    def reverted(self, stored: Stored) -> bool:
        return exchange.reverted(stored.volume, stored.data["name"])

    def after_boot(self, volume: Volume) -> None:
        if volume.fstype == "zfs":
            carry_over(volume)


def _snapshots(volume: Volume, name: str) -> list[str]:
    """Where the snapshot may be: with the dataset, or with one that another checkpoint displaced at a boot."""
    holders = [datasets.mount_of(volume).source, *(plan.old for plan in plans(volume))]
    return [f"{dataset}@{name}" for dataset in holders]


@dataclass(frozen=True, slots=True)
class _Planned:
    """A volume ready to be snapshotted."""

    snapshot: str
    inside: str
    proof: Proof


def _plan(volume: Volume, creation: Creation, name: str) -> _Planned:
    """Note what is to be made, and write to disk what is dirty.

    The instant comes before the sync: what is written through a mapping after it gets a later ctime.
    """
    mount = datasets.mount_of(volume)
    write_json(os.path.join(creation.vault, _NOTE), {"name": name})
    proof = Proof.take()
    sync_filesystem(volume.root)
    return _Planned(f"{mount.source}@{name}", datasets.place_in(volume, mount), proof)


def _refusals(volume: Volume) -> Iterator[Reason]:
    mount = datasets.mount_of(volume)
    pool = datasets.pool_of(mount.source)
    if datasets.pool_state(pool) == "SUSPENDED":
        yield Reason(f"the pool {pool} is suspended", f"zpool status {pool}; zpool clear {pool}")
        return
    if os.geteuid() != 0:
        yield Reason("snapshots need root", "run snapbreaker as root")
        return
    if os.statvfs(volume.mountpoint).f_flag & os.ST_RDONLY:
        yield Reason(f"{mount.source} is read-only", _read_only_remedy(mount))
    if calls.find() is None:
        yield Reason("neither libzfs_core nor zfs is installed", "apt-get install zfsutils-linux")
    if reason := _too_long(mount.source):
        yield reason


def _read_only_remedy(mount: Mount) -> str:
    return f"zfs set readonly=off {mount.source}, or import the pool without -o readonly=on"


def _too_long(dataset: str) -> Reason | None:
    """ZFS_MAX_DATASET_NAME_LEN is 256, with the closing NUL (include/sys/fs/zfs.h)."""
    if len(os.fsencode(dataset)) + len("@snapbreaker-000000-00000000T000000-00000000") < 256:
        return None
    return Reason(f"the name {dataset} is too long for that of a snapshot", "zfs rename it")
