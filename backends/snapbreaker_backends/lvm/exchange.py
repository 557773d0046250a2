"""Another logical volume has a volume's name from the next boot on: the checkpoint, with what is kept.

Of a thin volume it is a writable snapshot of the checkpoint, else a whole copy of it in free extents. The two
exchange their names at one instant (``names.py``). What runs goes on with the one that is mounted until the
reboot. Early in the next boot what is kept (logs, records, vaults, what --keep names) is copied from there: only
then it is complete. What was displaced stays, under the other name, and is not activated at boot.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, field

from snapbreaker import carried
from snapbreaker.backend import Stored, Volume
from snapbreaker.carried import DIRECTORY, opened
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError
from snapbreaker.files import ops
from snapbreaker.linux import device_mapper
from snapbreaker.linux.durable import encode_json, read_json, sync_directory, write_json
from snapbreaker.linux.mount import detached_mount
from snapbreaker.linux.mountinfo import read_mounts
from snapbreaker.linux.openat import open_beneath
from snapbreaker.linux.process import boot_id
from snapbreaker.linux.writeback import syncfs
from snapbreaker_backends.lvm import logical_volume, names
from snapbreaker_backends.lvm.logical_volume import LogicalVolume

_NOTE = "at-boot.json"  # in the vault
_PLANS = ".snapbreaker/at-boot"  # in the volume to come, where nothing else says that it has come
OTHERS = {"xfs": ("nouuid",)}  # options that mount one of two filesystems with the same identity


@dataclass(frozen=True, slots=True)
class Plan:
    """``name`` is that of the volume, ``other`` that of the one to come, and afterwards of the one displaced.

    ``old`` and ``new`` are their identities as lvs(8) has them; ``new`` is empty before it is made. ``kept`` are
    the paths that are brought over, ``times`` the mtimes of the directories that hold them, ``boot`` is that in
    which it was scheduled.
    """

    checkpoint: str
    group: str
    name: str
    other: str
    old: str
    new: str = ""
    kept: tuple[str, ...] = ()
    times: dict[str, int] | None = None
    boot: str = field(default_factory=boot_id)


def mounted(volume: Volume) -> device_mapper.Device:
    """The device of what is mounted there now. Raises CheckpointError where that is no device-mapper's."""
    for mount in reversed(read_mounts()):
        if mount.mountpoint == volume.mountpoint:
            if device := device_mapper.device(mount.device):
                return device
            break
    raise CheckpointError(f"no logical volume is mounted at {volume.mountpoint}")


def schedule(stored: Stored, snapshot: LogicalVolume) -> None:
    """Have a copy of ``snapshot``, the checkpoint's, in place of the volume from the next boot on.

    Idempotent. What an earlier boot had displaced for it goes. Raises CheckpointError, OSError.
    """
    volume = stored.volume
    discard(volume, stored.vault)
    origin = logical_volume.of_device(mounted(volume).uuid)
    if origin is None:
        raise CheckpointError(f"lvs does not know what is mounted at {volume.mountpoint}")
    other = f"{snapshot.name}_boot"
    plan = Plan(stored.data["checkpoint"], origin.group, origin.name, other, origin.uuid)
    write_json(_note(stored.vault), asdict(plan))
    made = logical_volume.copy(origin, snapshot, other)
    with _activated(made) as device, _mounted(volume.fstype, device, "rw") as top:
        kept = carried.kept_of(stored.policy)
        plan = Plan(**{**asdict(plan), "new": made.uuid, "kept": kept, "times": carried.times_around(top, kept)})
        _put(top, _name(stored.vault), plan)
    write_json(_note(stored.vault), asdict(plan))
    names.exchange(plan.group, {plan.name: plan.old, plan.other: plan.new})


def call_off(volume: Volume, vault: str) -> None:
    """Idempotent. Raises CheckpointError after that boot, OSError."""
    plan = _read(vault)
    if plan is None:
        return
    if _is(mounted(volume), plan.new):
        raise CheckpointError(f"{volume.root} was reverted at boot already")
    if _has(plan, plan.name, plan.new) and _has(plan, plan.other, plan.old):
        if plan.boot != boot_id():  # by hand, from the other name: what may have been run on since stays
            raise CheckpointError(
                f"{volume.root} runs on {plan.group}/{plan.other}, which was displaced",
                f"boot {plan.group}/{plan.name} again",
            )
        names.exchange(plan.group, {plan.name: plan.new, plan.other: plan.old})
    _remove(plan, vault, plan.new)


def reverted(volume: Volume, vault: str) -> bool:
    """Whether the machine runs on the checkpoint by now. Raises CheckpointError, OSError."""
    plan = _read(vault)
    return plan is not None and _is(mounted(volume), plan.new)


def discard(volume: Volume, vault: str) -> None:
    """The checkpoint is given up: so is the volume that was displaced. Idempotent. CheckpointError, OSError."""
    plan = _read(vault)
    if plan is None:
        return
    here = mounted(volume)
    if not _is(here, plan.new) and (_is(here, plan.old) or _has(plan, plan.name, plan.new)):
        call_off(volume, vault)
        return
    if _is(here, plan.new) and os.path.exists(os.path.join(volume.mountpoint, _PLANS, _name(vault))):
        raise CheckpointError(
            f"{volume.root} was replaced at boot, and what is kept of it has not come over yet",
            "run `snapbreaker recover`",
        )
    for one in _found(plan):  # displaced: by the checkpoint, or by another one that took the place of that
        if not one.is_thin and (others := logical_volume.snapshots_of(one)):  # they would go with it
            raise CheckpointError(
                f"{one.path}, which was displaced at boot, has other snapshots: {', '.join(others)}",
                f"give them up first: lvremove {one.group}/{others[0]}",
            )
    _remove(plan, vault, plan.old)


def carry_over(volume: Volume) -> None:
    """After the boot, before anything is written: bring what is kept, once. Cut off, it is done again.

    Raises CheckpointError, OSError, ToolError.
    """
    plans = os.path.join(volume.mountpoint, _PLANS)
    with suppress(FileNotFoundError, NotADirectoryError):
        if not carried.is_ours(plans):
            return
        for file in sorted(name for name in os.listdir(plans) if name.endswith(".lvm")):
            plan = Plan(**read_json(os.path.join(plans, file)))
            if _is(mounted(volume), plan.new):
                _carry(volume, plan)
            os.unlink(os.path.join(plans, file))
            sync_directory(plans)
        with suppress(OSError):
            os.rmdir(plans)


def _carry(volume: Volume, plan: Plan) -> None:
    """From the old volume, which nothing is written to: so all of it can be done again."""
    displaced = [one for one in _found(plan) if one.uuid == plan.old]
    if not displaced:
        raise CheckpointError(f"{plan.group}/{plan.other} is gone: what is kept cannot be brought over", "lvs -a")
    with (
        _activated(displaced[0]) as device,
        _mounted(volume.fstype, device, "ro") as old,
        _mounted(volume.fstype, mounted(volume).path, "rw") as new,
    ):
        carried.clear(new, _without_plans(new, plan.kept))
        carried.copy(old, new, carried.there_in(old, new, plan.kept))
        carried.set_times(new, plan.times or {})
        syncfs(new)


def _without_plans(top: int, kept: tuple[str, ...]) -> Iterator[str]:
    base, _, plans = _PLANS.partition("/")
    for path in kept:
        if path != base:
            yield path
            continue
        with opened(open_beneath(top, os.fsencode(base), DIRECTORY)) as fd:
            yield from (f"{base}/{name}" for name in os.listdir(fd) if name != plans)


def _put(top: int, name: str, plan: Plan) -> None:
    path = ""
    for part in _PLANS.split("/"):
        path = f"{path}/{part}".lstrip("/")
        with carried.parent_of(top, os.fsencode(path)) as (parent, last), suppress(FileExistsError):
            ops.mkdir(parent, last)
    with (
        opened(open_beneath(top, os.fsencode(_PLANS), DIRECTORY)) as fd,
        opened(ops.create(fd, os.fsencode(name))) as file,
    ):
        ops.write(file, encode_json(asdict(plan)))
    syncfs(top)


@contextmanager
def _mounted(fstype: str, device: str, how: str) -> Iterator[int]:
    with detached_mount(fstype, device, {}, (how, *OTHERS.get(fstype, ()))) as top:
        yield top


@contextmanager
def _activated(one: LogicalVolume) -> Iterator[str]:
    """Its device, for the time of the block."""
    try:
        yield logical_volume.activate(one)
    finally:
        logical_volume.deactivate(one)


def _remove(plan: Plan, vault: str, uuid: str) -> None:
    """The volume that has the other name, if it is that one or one that was not noted yet; then the note."""
    for one in _found(plan):
        if one.uuid not in {plan.old, plan.new} - {uuid}:
            logical_volume.remove(one.name)
    os.unlink(_note(vault))
    sync_directory(vault)


def _found(plan: Plan) -> list[LogicalVolume]:
    return [one for one in logical_volume.named(plan.other) if one.group == plan.group]


def _has(plan: Plan, name: str, uuid: str) -> bool:
    """Whether that is the volume which has the name now. Raises CheckpointError."""
    return any(one.group == plan.group and one.uuid == uuid for one in logical_volume.named(name))


def _is(device: device_mapper.Device, uuid: str) -> bool:
    return bool(uuid) and device.uuid.endswith(uuid.replace("-", ""))


def _read(vault: str) -> Plan | None:
    try:
        return Plan(**read_json(_note(vault)))
    except FileNotFoundError:
        return None


def _note(vault: str) -> str:
    return os.path.join(vault, _NOTE)


def _name(vault: str) -> str:
    return "-".join(vault.rstrip("/").split("/")[-2:]) + ".lvm"
