"""Whether another logical volume can have the name of a volume at the next boot, and is what is mounted then."""

from __future__ import annotations

import os
from collections.abc import Iterator

from snapbreaker.backend import Reason, Volume
from snapbreaker.linux import fstab
from snapbreaker.report.wording import size_text
from snapbreaker_backends.lvm import logical_volume, reasons
from snapbreaker_backends.lvm.exchange import mounted
from snapbreaker_backends.lvm.logical_volume import LogicalVolume

COMMAND_LINE = "/proc/cmdline"
GRUB = "/boot/grub/grub.cfg"
_IDENTITIES = ("UUID=", "LABEL=", "/dev/disk/by-uuid/", "/dev/disk/by-label/")
_EXCHANGED = ("thin", "linear", "striped")  # types of volumes that no hidden ones belong to


def refusals(volume: Volume, inside: str, snapshot: LogicalVolume | None) -> Iterator[Reason]:
    """Why not. ``inside`` is where its root lies within its filesystem. Raises CheckpointError, OSError."""
    if volume.root != volume.mountpoint or inside:
        yield Reason(
            f"only {volume.root} of it is in scope, and it goes back as a whole", f"--scope {volume.mountpoint}"
        )
    if snapshot is None:
        yield Reason("its snapshot is gone, as after a commit: only what the run changed is kept")
        return
    origin = logical_volume.of_device(mounted(volume).uuid)
    if origin is None:
        yield Reason(f"what is mounted at {volume.mountpoint} is no logical volume")
        return
    if origin.group != snapshot.group or origin.type not in _EXCHANGED:
        yield Reason(f"{origin.path} is of the type {origin.type}: only {', '.join(_EXCHANGED)} can be exchanged")
        return
    yield from reasons.of_state(origin)
    if origin.is_shared:
        yield Reason(f"the group {origin.group} is shared with other machines")
    if not origin.is_thin and origin.free < origin.size:
        yield Reason(
            f"{origin.path} is not thin: a copy of all of its {size_text(origin.size)} takes its place, and the"
            f" group {origin.group} has {size_text(origin.free)} free",
            f"vgextend {origin.group} DEVICE",
        )
    yield from _named_otherwise(volume, origin)


def _named_otherwise(volume: Volume, origin: LogicalVolume) -> Iterator[Reason]:
    """By what stays with the volume that is there now."""
    for where, source in _sources(volume):
        if os.path.basename(source).startswith("dm-uuid-"):
            yield Reason(
                f"{where} mounts {volume.mountpoint} by the identity of the logical volume",
                f"name it: /dev/{origin.path}",
            )
    if volume.root == "/" and os.stat("/boot").st_dev == os.stat("/").st_dev:
        try:
            with open(GRUB, encoding="utf-8", errors="surrogateescape") as file:
                bound = origin.uuid in file.read()
        except FileNotFoundError:
            return
        if bound:
            yield Reason("GRUB finds /boot by the identity of this logical volume", "move /boot to a partition")


def by_filesystem(volume: Volume) -> str:
    """What mounts it by the identity of its filesystem, which its snapshots have too; empty when nothing does."""
    for where, source in _sources(volume):
        if source.startswith(_IDENTITIES):
            return where
    return ""


def _sources(volume: Volume) -> Iterator[tuple[str, str]]:
    """What fstab(5) and, of the root, the kernel's command line say is mounted there."""
    if volume.mountpoint == "/":
        with open(COMMAND_LINE, encoding="utf-8", errors="surrogateescape") as file:
            yield from ((COMMAND_LINE, word[5:]) for word in file.read().split() if word.startswith("root="))
    for line in fstab.read_fstab():
        if line.mountpoint.rstrip("/") == volume.mountpoint.rstrip("/"):
            yield fstab.PATH, line.source
