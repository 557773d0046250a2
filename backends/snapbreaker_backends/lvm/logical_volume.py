"""What lvm(8) says of a logical volume, and what it is asked to make and to remove."""

from __future__ import annotations

import json
import re
from typing import Any

from snapbreaker import commands
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError, ToolError

PREFIX = "LVM-"  # of the uuid of its device-mapper device: then the group's 32 characters, then the volume's
TAG = "snapbreaker"
_FIELDS = (
    "vg_name,vg_attr,vg_extent_size,vg_free_count,lv_name,lv_uuid,lv_attr,lv_size,pool_lv,origin,segtype,"
    "data_percent,metadata_percent"
)
_UUID = re.compile("(.{6})(.{4})(.{4})(.{4})(.{4})(.{4})(.{6})")
# Sizes as plain numbers of bytes; no backup of the group's metadata in /etc/lvm, which may be in scope.
_PLAIN = ("--units", "b", "--nosuffix")
_QUIETLY = ("--autobackup", "n", "--quiet", "--quiet")


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """Sizes are bytes. ``attributes`` are those of lvs(8); ``pool`` is set for a thin volume."""

    group: str
    group_attributes: str
    extent: int
    free_extents: int
    name: str
    uuid: str
    attributes: str
    size: int
    pool: str
    origin: str
    type: str

    @property
    def path(self) -> str:
        return f"{self.group}/{self.name}"

    @property
    def is_thin(self) -> bool:
        return self.type == "thin"

    @property
    def free(self) -> int:
        return self.free_extents * self.extent


def of_device(uuid: str) -> LogicalVolume | None:
    """The volume of the device-mapper device ``uuid``; None when lvm(8) knows none. Raises CheckpointError."""
    match = _UUID.fullmatch(uuid.removeprefix(PREFIX)[32:])
    if not match:
        return None
    found = _report("--select", f"lv_uuid={'-'.join(match.groups())}")
    return found[0] if found else None


def named(name: str) -> list[LogicalVolume]:
    """Those called ``name``, in any group."""
    return _report("--select", f"lv_name={name}")


def snapshots_of(volume: LogicalVolume) -> list[str]:
    """Names of the snapshots that others have of it."""
    found = _report("--select", f"origin={volume.name} && vg_name={volume.group}")
    return [one.name for one in found if not one.name.startswith(f"{TAG}_")]


def take(volume: LogicalVolume, name: str, checkpoint: str, extents: int) -> None:
    """Make the snapshot ``name``. ``extents`` for what changes, of a classic one. Raises CheckpointError.

    lvcreate(8) suspends the origin, which freezes its filesystem: what it shows is whole and needs no journal.
    """
    size = [] if volume.is_thin else ["--extents", str(extents)]
    # Without the skip of activation that thin snapshots get, it is there again after a reboot.
    kept = ["--setactivationskip", "n"] if volume.is_thin else []
    tags = ["--addtag", TAG, "--addtag", f"{TAG}.{checkpoint}"]
    try:
        commands.run(
            ["lvcreate", "--snapshot", "--name", name, *size, *kept, *tags, *_QUIETLY, "--yes", volume.path]
        )
    except ToolError as error:
        raise CheckpointError(
            f"lvcreate: {error.message}", f"lvs -a {volume.group}; vgs {volume.group}"
        ) from error


def remove(name: str) -> None:
    """Remove the snapshot ``name``, wherever it is. Idempotent. Raises CheckpointError."""
    for one in named(name):
        try:
            commands.run(["lvremove", "--yes", "--force", *_QUIETLY, one.path])
        except ToolError as error:
            if named(name):
                raise CheckpointError(f"lvremove: {error.message}", f"lvremove {one.path}") from error


def _report(*selection: str) -> list[LogicalVolume]:
    try:
        done = commands.run(["lvs", "--all", "--reportformat", "json", *_PLAIN, "-o", _FIELDS, *selection])
    except ToolError as error:
        raise CheckpointError(f"lvs: {error.message}") from error
    return [_parsed(row) for report in json.loads(done.stdout)["report"] for row in report.get("lv", ())]


def _parsed(row: dict[str, Any]) -> LogicalVolume:
    return LogicalVolume(
        group=row["vg_name"],
        group_attributes=row["vg_attr"],
        extent=int(row["vg_extent_size"]),
        free_extents=int(row["vg_free_count"]),
        name=row["lv_name"].strip("[]"),
        uuid=row["lv_uuid"],
        attributes=row["lv_attr"],
        size=int(row["lv_size"]),
        pool=row["pool_lv"].strip("[]"),
        origin=row["origin"].strip("[]"),
        type=row["segtype"],
    )
