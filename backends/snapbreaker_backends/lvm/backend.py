"""The LVM backend: a snapshot of the volume; the file engine restores from a mount of it that nobody sees."""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

from snapbreaker import commands
from snapbreaker.backend import Availability, Backend, Capability, Creation, Reason, Stored, Volume
from snapbreaker.errors import CheckpointError, RestoreError, SnapbreakerError
from snapbreaker.files.mounted import MountedTree
from snapbreaker.files.proof import Proof
from snapbreaker.files.tree import Tree
from snapbreaker.linux import device_mapper, udev
from snapbreaker.linux.durable import read_json, sync_directory, write_json
from snapbreaker.linux.mount import detached_mount
from snapbreaker.linux.mountinfo import read_mounts
from snapbreaker.linux.openat import open_beneath
from snapbreaker.linux.writeback import sync_filesystem
from snapbreaker.paths import below, relative
from snapbreaker.report.wording import size_text
from snapbreaker_backends.lvm import exchange, logical_volume, place, reasons, size
from snapbreaker_backends.lvm.gauges import Gauge, room
from snapbreaker_backends.lvm.logical_volume import LogicalVolume

_NOTE = "snapshot.json"  # in the vault: the name of what create is about to make
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A snapshot is made of a frozen filesystem, so there is no journal to replay: ext4(5), xfs(5).
_FLAGS = {"ext4": ("ro", "noload"), "xfs": ("ro", "norecovery", "nouuid")}
# Bytes that a restore writes beside contents: directories, inodes, journal.
_FOR_A_PATH, _FOR_ALL = 8 << 10, 4 << 20


class LvmBackend(Backend):
    name = "lvm"
    rank = 20
    capabilities = Capability.INSTANT | Capability.AT_BOOT
    in_reach = logical_volume.IN_REACH
    udev_rules = logical_volume.UDEV_RULES

    def availability(self, volume: Volume) -> Availability:
        device = device_mapper.device(volume.device)
        if device is None or not device.uuid.startswith(logical_volume.PREFIX):
            return Availability((Reason(f"{volume.root} does not lie on a logical volume"),))
        if not commands.installed("lvs"):
            return Availability((Reason("lvm is not installed", "apt-get install lvm2"),))
        origin = logical_volume.of_device(device.uuid, logical_volume.recent())
        if origin is None:
            return Availability((Reason(f"lvs does not know {device.path}", "vgscan; lvs -a"),))
        refused = tuple(_refusals(volume, origin))
        return Availability(refused, () if refused else tuple(_notes(volume, origin)))

    def create(self, volume: Volume, creation: Creation) -> dict[str, Any]:
        return next(self.create_all([(volume, creation)]))

    def create_all(self, wanted: Sequence[tuple[Volume, Creation]]) -> Iterator[dict[str, Any]]:
        """One after the other: lvm(8) is asked about them once, and makes no two snapshots at one instant."""
        known = logical_volume.every()
        taken = Counter[str]()  # extents of each group
        for volume, creation in wanted:
            origin = _origin(volume, known)
            origin = replace(origin, free_extents=origin.free_extents - taken[origin.group])
            data = self._create(volume, creation, origin)
            taken[origin.group] += data["bytes"] // origin.extent
            yield data

    def _create(self, volume: Volume, creation: Creation, origin: LogicalVolume) -> dict[str, Any]:
        started = time.monotonic()
        extents = size.extents(volume, origin, creation.options.get("snapshot_size", 0))
        name = (
            f"{logical_volume.TAG}_{creation.checkpoint.replace('-', '_')}_{volume.number}_{secrets.token_hex(4)}"
        )
        write_json(os.path.join(creation.vault, _NOTE), {"name": name})
        # The instant comes before the sync: what is written through a mapping after it gets a later ctime.
        proof = Proof.take()
        sync_filesystem(volume.root)
        uuid = logical_volume.take(origin, name, creation.checkpoint, extents)
        return {
            "checkpoint": creation.checkpoint,
            "bytes": 0 if origin.is_thin else extents * origin.extent,
            "frozen": 0.0,
            "seconds": time.monotonic() - started,
            "proof": proof.as_dict(),
            "name": name,
            "group": origin.group,
            "uuid": uuid,
            "inside": _inside(volume),
            "pool": _pool(origin),
        }

    def open(self, stored: Stored) -> Tree:
        data, volume = stored.data, stored.volume
        device = _active(stored)
        if reason := _broken(device):
            raise CheckpointError(
                f"the snapshot {data['group']}/{data['name']} {reason}", "this checkpoint is lost"
            )
        skip = [os.fsencode(relative(path, volume.root)) for path in volume.skip]
        with ExitStack() as stack:
            try:
                mount = detached_mount(volume.fstype, device.path, {}, _FLAGS[volume.fstype])
                top = stack.enter_context(mount)
                root = (
                    open_beneath(top, os.fsencode(data["inside"]), _DIRECTORY) if data["inside"] else os.dup(top)
                )
            except OSError as error:
                for place in _mounted_at(device):
                    raise CheckpointError(
                        f"the snapshot {device.path} is mounted at {place}, in place of the volume",
                        f"umount {place}; mount {place}; then roll back again",
                    ) from error
                raise CheckpointError(f"the snapshot {device.path} cannot be read: {error.strerror}") from error
            stack.callback(os.close, root)
            return MountedTree(stack.pop_all(), root, stored.policy, skip)

    def discard(self, volume: Volume, vault: str, record: str) -> None:
        _drop(vault)
        exchange.discard(volume, vault)

    def release(self, stored: Stored) -> None:
        """The undo set has what it needs. A classic snapshot makes every write cost a second one."""
        with suppress(SnapbreakerError):  # `checkpoint delete` says why
            _drop(stored.vault)

    def lingers(self, stored: Stored) -> bool:
        return True

    def gauges(self, stored: Stored) -> Sequence[Callable[[], str]]:
        """Of a thin snapshot the pool's, of a classic one its own."""
        device = _gauged(stored)
        what = "the thin pool" if stored.data["pool"] else "the snapshot"
        return (Gauge.of(device.name, f"{what} {device.name}"),)

    def at_boot(self, stored: Stored) -> Availability:
        return Availability(tuple(place.refusals(stored.volume, stored.data["inside"], _snapshot(stored))))

    def schedule(self, stored: Stored) -> None:
        snapshot = _snapshot(stored)
        assert snapshot is not None, "at_boot has looked"
        exchange.schedule(stored, snapshot)

    def call_off(self, stored: Stored) -> None:
        exchange.call_off(stored.volume, stored.vault)

    def reverted(self, stored: Stored) -> bool:
        return exchange.reverted(stored.volume, stored.vault)

    def after_boot(self, volume: Volume) -> None:
        if volume.fstype in _FLAGS:
            exchange.carry_over(volume)

    def make_room(self, stored: Stored, octets: Callable[[], int], paths: int) -> None:
        """What was deleted is written to free blocks, and each of those is saved in the snapshot first, too.

        lvextend(8) is a program of the machine that is about to be put back: it is run where nothing else helps.
        """
        device = _gauged(stored)
        written = octets()
        wanted = written + written // 16 + paths * _FOR_A_PATH + _FOR_ALL
        if (free := room(device)) >= wanted:
            return
        found = logical_volume.named(stored.data["name"])
        place = f"{stored.data['group']}/{found[0].pool or found[0].name}" if found else device.name
        with suppress(SnapbreakerError, OSError, ImportError):
            logical_volume.extend(place, wanted - free)
        if (free := room(device)) < written:
            raise RestoreError(
                f"{place} has room for {size_text(free)} and overflows: a rollback writes {size_text(written)}",
                f"lvextend -L +{(written - free >> 20) + 64}m {place}; then roll back again",
            )


def _drop(vault: str) -> None:
    """Remove the snapshot. Idempotent."""
    note = os.path.join(vault, _NOTE)
    try:
        name = read_json(note)["name"]
    except FileNotFoundError:
        return
    logical_volume.remove(name)
    os.unlink(note)
    sync_directory(vault)


def _snapshot(stored: Stored) -> LogicalVolume | None:
    for one in logical_volume.named(stored.data["name"]):
        if one.kernel_uuid == stored.data["uuid"]:
            return one
    return None


def _gauged(stored: Stored) -> device_mapper.Device:
    """The device whose fill counts: of a thin snapshot its pool, of a classic one the snapshot itself."""
    device = device_mapper.find(stored.data["pool"]) if stored.data["pool"] else _active(stored)
    if device is None:
        raise CheckpointError("the thin pool of the snapshot cannot be found")
    return device


def _origin(volume: Volume, among: Sequence[LogicalVolume]) -> LogicalVolume:
    device = device_mapper.device(volume.device)
    origin = logical_volume.of_device(device.uuid, among) if device else None
    if origin is None:
        raise CheckpointError(f"{volume.root} does not lie on a logical volume any more")
    return origin


def _pool(origin: LogicalVolume) -> str:
    """The uuid of the device of its pool; empty where it is not thin."""
    if not origin.is_thin:
        return ""
    pool = logical_volume.pool_of(origin)
    if pool is None:
        raise CheckpointError(f"the pool {origin.group}/{origin.pool} cannot be found", "lvs -a")
    return pool.uuid


def _inside(volume: Volume) -> str:
    """Where the volume's root lies within its filesystem; empty for its top."""
    found = [mount for mount in read_mounts() if mount.mountpoint == volume.mountpoint]
    if not found:
        raise CheckpointError(f"nothing is mounted at {volume.mountpoint}")
    return below(found[-1].root, relative(volume.root, volume.mountpoint)).strip("/")


def _active(stored: Stored) -> device_mapper.Device:
    """The device of the snapshot. After a reboot that did not activate it, lvchange(8) may have to."""
    device = device_mapper.find(stored.data["uuid"])
    if device is None and commands.installed("lvchange"):
        with suppress(SnapbreakerError):
            for one in logical_volume.named(stored.data["name"]):
                logical_volume.activate(one)
        device = device_mapper.find(stored.data["uuid"])
    if device is None:
        place = f"{stored.data['group']}/{stored.data['name']}"
        raise CheckpointError(
            f"the snapshot {place} was removed, or is not active", f"lvs -a; lvchange -ay -K {place}"
        )
    return device


def _broken(device: device_mapper.Device) -> str:
    try:
        kind, said = device_mapper.status(device.name)
    except OSError as error:
        return "is gone" if error.errno == errno.ENXIO else f"cannot be asked: {error.strerror}"
    if kind == "snapshot" and said.startswith(("Invalid", "Overflow", "Merge failed")):
        return "has overflowed: more was written than it had room for" if "Merge" not in said else "was merged"
    return "has failed" if said.startswith(("Fail", "Error")) else ""


def _mounted_at(device: device_mapper.Device) -> list[str]:
    return [mount.mountpoint for mount in read_mounts() if mount.device == device.number]


def _refusals(volume: Volume, origin: LogicalVolume) -> Iterator[Reason]:
    if volume.fstype not in _FLAGS:
        yield Reason(f"{volume.fstype} on a logical volume: only " + " and ".join(_FLAGS))
    if os.geteuid() != 0:
        yield Reason("snapshots need root", "run snapbreaker as root")
        return
    yield from reasons.of_volume(origin, size.least(origin))


def _notes(volume: Volume, origin: LogicalVolume) -> Iterator[str]:
    if origin.is_thin:
        return
    snapshots = logical_volume.snapshots_of(origin, logical_volume.recent())
    others = [name for name in snapshots if not name.startswith(logical_volume.TAG + "_")]
    if others:
        yield f"{origin.path} has other snapshots: {', '.join(others)}; each makes every write slower"
    if (where := place.by_filesystem(volume)) and not udev.FOR_GOOD.exists():
        yield (
            f"{where} mounts {volume.mountpoint} by the identity of its filesystem: after a power cut the boot may"
            " mount its snapshot instead; snapbreaker install-service"
        )
    octets = size.extents(volume, origin, 0) * origin.extent
    yield f"the run may change {size_text(octets // 2)}: --snapshot-size N gives it more or less"
