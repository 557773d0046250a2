"""What lvm(8) says of a logical volume, and what it is asked to make and to remove."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from typing import Any

from snapbreaker import commands
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError, ToolError
from snapbreaker.linux import device_mapper, udev

RECENT = 2.0  # s
PREFIX = "LVM-"  # of the uuid of its device-mapper device: then the group's 32 characters, then the volume's
TAG = "snapbreaker"
_FIELDS = (
    "vg_name,vg_uuid,vg_attr,vg_extent_size,vg_free_count,lv_name,lv_uuid,lv_attr,lv_size,pool_lv,origin,segtype,"
    "data_percent,metadata_percent"
)
_UUID = re.compile("(.{6})(.{4})(.{4})(.{4})(.{4})(.{4})(.{6})")
# Sizes as plain numbers of bytes; no backup of the group's metadata in /etc/lvm, which may be in scope.
_PLAIN = ("--units", "b", "--nosuffix")
_QUIETLY = ("--autobackup", "n", "--quiet", "--quiet")
# Not activated at boot, when one of two filesystems with the same identity would be mounted; but now.
_SKIPPED = ("--setactivationskip", "y", "--ignoreactivationskip")
# udev(7): a snapshot has the identity of its origin, and is not to have its names in /dev/disk. lvm(8) itself only
# has links of classic ones come second, which is too late for what is mounted as soon as the first is there.
UDEV_RULES = f"""\
SUBSYSTEM=="block", ATTR{{dm/name}}=="*-{TAG}_*", ENV{{DM_UDEV_DISABLE_DISK_RULES_FLAG}}="1"
"""
# For the initramfs. Thin snapshots are not activated at boot.
IN_REACH = f"""\
if command -v lvm >/dev/null; then
	lvm lvchange --activate y --ignoreactivationskip --yes --sysinit @{TAG}
fi
"""
_NEVER: tuple[float, list[LogicalVolume]] = (float("-inf"), [])
_latest = _NEVER


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """Sizes are bytes. ``attributes`` are those of lvs(8); ``pool`` is set for a thin volume."""

    group: str
    group_uuid: str
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
    def is_shared(self) -> bool:
        return self.group_attributes[5:6] in tuple("cs")

    @property
    def kernel_uuid(self) -> str:
        """Of its device."""
        return PREFIX + (self.group_uuid + self.uuid).replace("-", "")

    @property
    def free(self) -> int:
        return self.free_extents * self.extent


def every() -> list[LogicalVolume]:
    """All that lvm(8) knows, the hidden ones too. Raises CheckpointError."""
    global _latest
    found = _report()
    _latest = time.monotonic(), found
    return found


def recent() -> list[LogicalVolume]:
    """The same, maybe as of ``RECENT`` seconds ago if we have changed nothing since: for several volumes that are
    looked at one after the other. Raises CheckpointError.
    """
    then, found = _latest
    return found if time.monotonic() - then < RECENT else every()


def of_device(uuid: str, among: Sequence[LogicalVolume] | None = None) -> LogicalVolume | None:
    """The volume of the device-mapper device ``uuid``; None when lvm(8) knows none. Raises CheckpointError."""
    match = _UUID.fullmatch(uuid.removeprefix(PREFIX)[32:])
    if not match:
        return None
    wanted = "-".join(match.groups())
    found = _report("--select", f"lv_uuid={wanted}") if among is None else among
    return next((one for one in found if one.uuid == wanted), None)


def named(name: str) -> list[LogicalVolume]:
    """Those called ``name``, in any group."""
    return _report("--select", f"lv_name={name}")


def snapshots_of(volume: LogicalVolume, among: Sequence[LogicalVolume] | None = None) -> list[str]:
    """Names of its snapshots."""
    wanted = volume.name, volume.group
    found = _report("--select", f"origin={wanted[0]} && vg_name={wanted[1]}") if among is None else among
    return [one.name for one in found if (one.origin, one.group) == wanted]


def pool_of(volume: LogicalVolume) -> device_mapper.Device | None:
    """The device of a thin volume's pool, in the layer that holds the target; None while it is not active."""
    device = device_mapper.find(volume.kernel_uuid)
    layers = device_mapper.below(device) if device else []
    return next((one for one in layers if one.uuid.endswith("-tpool")), None)


def has_integrity(volume: LogicalVolume) -> bool:
    """Whether a RAID volume has checksums below its images (lvmraid(7))."""
    hidden = _report("--select", f"vg_name={volume.group} && segtype=integrity")
    return any(one.name.startswith(f"{volume.name}_rimage_") for one in hidden)


def take(volume: LogicalVolume, name: str, checkpoint: str, extents: int) -> str:
    """Make the snapshot ``name``, and return its kernel_uuid; it is active afterwards. ``extents`` are for what
    changes, of a classic one. Raises CheckpointError.

    lvcreate(8) suspends the origin, which freezes its filesystem: what it shows is whole and needs no journal.
    """
    tags = ("--addtag", TAG, "--addtag", f"{TAG}.{checkpoint}")  # the first is known to the hook for the initramfs
    if volume.is_thin:
        _make("--snapshot", "--name", name, *_SKIPPED, *tags, volume.path)
    else:
        _make("--snapshot", "--name", name, "--extents", str(extents), *tags, volume.path)
    # lvm(8) is asked again, which takes a while, only where the device is not there.
    if device := device_mapper.named(_device_name(volume.group, name)):
        return device.uuid
    made = _made(name)
    activate(made)
    return made.kernel_uuid


def _device_name(group: str, name: str) -> str:
    """As libdevmapper makes it (dm_build_dm_name)."""
    return "-".join(part.replace("-", "--") for part in (group, name))


def copy(volume: LogicalVolume, snapshot: LogicalVolume, name: str) -> LogicalVolume:
    """Make ``name``, a writable copy of a snapshot of ``volume``: it is active afterwards.

    Of a thin volume another snapshot, else a copy of all blocks. Raises CheckpointError.
    """
    tag = ("--addtag", f"{TAG}.boot")
    if volume.is_thin:
        _make("--snapshot", "--name", name, *_SKIPPED, *tag, snapshot.path)
        return _made(name)
    extents = str(-(-volume.size // volume.extent))
    _make("--extents", extents, "--name", name, "--wipesignatures", "n", *_SKIPPED, *tag, volume.group)
    made = _made(name)
    source, target = activate(snapshot), activate(made)
    try:
        how = ("bs=4M", "iflag=direct", "oflag=direct", "conv=fsync", "status=none")
        commands.run(["dd", f"if={source}", f"of={target}", *how], timeout=None)
    except ToolError as error:
        raise CheckpointError(f"{snapshot.path} could not be copied: {error.message}") from error
    return made


def _make(*what: str) -> None:
    udev.have(UDEV_RULES)
    group = what[-1].partition("/")[0]
    _lvm("lvcreate", *what, *_QUIETLY, "--yes", hint=f"lvs -a {group}; vgs {group}")


def _made(name: str) -> LogicalVolume:
    found = named(name)
    if not found:
        raise CheckpointError(f"lvcreate made no {name}")
    return found[0]


def activate(one: LogicalVolume) -> str:
    """The path of its device. Raises CheckpointError."""
    udev.have(UDEV_RULES)
    device = device_mapper.find(one.kernel_uuid)
    if device is None:
        how = ("--activate", "y", "--ignoreactivationskip", "--yes")
        _lvm("lvchange", *how, *_QUIETLY, one.path, hint=f"lvchange -ay -K {one.path}")
        device = device_mapper.find(one.kernel_uuid)
    if device is None:
        raise CheckpointError(
            f"{one.path} does not become active",
            f'where lvm.conf has an activation/volume_list: add "@{TAG}"; lvchange -ay -K {one.path}',
        )
    return device.path


def deactivate(one: LogicalVolume) -> None:
    """Raises CheckpointError."""
    _lvm("lvchange", "--activate", "n", *_QUIETLY, one.path, hint=f"lvchange -an {one.path}")


def extend(path: str, octets: int) -> None:
    """Make a snapshot, or a thin pool, larger by at least ``octets``. Raises CheckpointError."""
    _lvm("lvextend", "--size", f"+{-(-octets // 512)}s", *_QUIETLY, path)


def remove(name: str) -> None:
    """Remove the snapshot ``name``, wherever it is. Idempotent. Raises CheckpointError."""
    for one in named(name):
        try:
            _lvm("lvremove", "--yes", "--force", *_QUIETLY, one.path, hint=f"lvremove {one.path}")
        except CheckpointError:
            if named(name):
                raise


def _report(*selection: str) -> list[LogicalVolume]:
    said = _lvm("lvs", "--all", "--reportformat", "json", *_PLAIN, "-o", _FIELDS, *selection)
    rows = [row for report in json.loads(said)["report"] for row in report.get("lv", ())]
    # One for each of its segments; the first says what a volume is of that begins as it goes on.
    return [_parsed(row) for row in {row["lv_uuid"]: row for row in reversed(rows)}.values()]


def _lvm(*argv: str, hint: str = "") -> str:
    """What a program of lvm(8) prints. Raises CheckpointError with all that it says but for warnings."""
    global _latest
    if argv[0] != "lvs":
        _latest = _NEVER
    try:
        return commands.run(argv).stdout
    except ToolError as error:
        lines = [line.strip() for line in error.stderr.splitlines()]
        said = " ".join(line for line in lines if not line.startswith("WARNING:"))
        raise CheckpointError(f"{argv[0]}: {said}" if said else error.message, hint) from error


def _parsed(row: dict[str, Any]) -> LogicalVolume:
    return LogicalVolume(
        group=row["vg_name"],
        group_uuid=row["vg_uuid"],
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
