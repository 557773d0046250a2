"""Where the subvolume of a volume lies in its filesystem, and whether another can take its place at the next boot.

What is mounted then is said by ``subvol=`` (a path: another subvolume of that name is mounted), by ``subvolid=``
(the subvolume itself, whatever its name: nothing can take its place), or by neither: the filesystem's default
subvolume (btrfs(5), "MOUNT OPTIONS"). Of the root the kernel's command line counts, of others fstab(5).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from snapbreaker.backend import Reason, Volume
from snapbreaker.commands import run
from snapbreaker.dataclass import dataclass
from snapbreaker.linux import btrfs, fstab
from snapbreaker.linux.fstab import read_fstab
from snapbreaker.linux.mount import detached_mount
from snapbreaker.linux.mountinfo import Mount, read_mounts

FSTAB, COMMAND_LINE = fstab.PATH, "/proc/cmdline"


@dataclass(frozen=True, slots=True)
class Place:
    """``path`` from the top level, ``identity`` of what is mounted there; ``by_default``: nobody names it."""

    path: bytes
    identity: int
    by_default: bool


def mount_of(volume: Volume) -> Mount:
    """As it is now: devices may have other names since the last boot. Raises OSError."""
    for mount in reversed(read_mounts()):
        if mount.mountpoint == volume.mountpoint and mount.fstype == "btrfs":
            return mount
    raise OSError(errno.ENOENT, "no btrfs is mounted there", volume.mountpoint)


def place_of(volume: Volume) -> Place:
    """Raises OSError."""
    inside = mount_of(volume).root
    fd = os.open(volume.mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        identity = btrfs.subvolume_info(fd).id
    finally:
        os.close(fd)
    return Place(os.fsencode(inside.strip("/")), identity, _named(volume) is None)


def refusals(volume: Volume) -> Iterator[Reason]:
    """Why none can take the place of this one. Raises OSError."""
    point = volume.mountpoint
    if volume.root != point:
        yield Reason(f"only {volume.root} of it is in scope, and it goes back as a whole", f"--scope {point}")
        return
    place = place_of(volume)
    if place.identity == btrfs.TOP_LEVEL or not place.path:
        yield Reason(
            f"{point} is the top level of its filesystem", "move it to a subvolume: btrfs subvolume create"
        )
        return
    fd = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        whole = btrfs.is_subvolume(fd)
    finally:
        os.close(fd)
    if not whole:
        yield Reason(f"{point} shows a directory of its subvolume, not all of it")
        return
    for where, options in _options(volume):
        if any(option.startswith("subvolid=") for option in options):
            name = os.fsdecode(place.path)
            yield Reason(
                f"{where} mounts {point} by subvolid=, which no other subvolume can have",
                f"name it: subvol={name}",
            )
            return
    if (named := _named(volume)) and os.fsencode(named[1]) != place.path:
        yield Reason(
            f"{named[0]} mounts {named[1]} at {point}, and not {os.fsdecode(place.path)}, which is there now",
            "boot it, or name the other one there",
        )
    if place.by_default and default_of(volume) != place.identity:
        yield Reason(f"{point} is neither mounted by subvol= at boot nor the filesystem's default subvolume")


def mount_again(volume: Volume, path: str, point: str) -> None:
    """Mount the subvolume ``path`` at ``point``, with the volume's options. Raises OSError, ToolError."""
    mount = mount_of(volume)
    options = dict.fromkeys([*mount.options.split(","), *mount.super_options.split(",")])
    kept = [option for option in options if not option.startswith(("subvol=", "subvolid="))]
    run(["mount", "-t", "btrfs", "-o", ",".join([*kept, f"subvol={path}"]), "--", mount.source, point])


def default_of(volume: Volume) -> int:
    """The id of the subvolume that is mounted where none is named. Raises OSError."""
    with detached_mount("btrfs", mount_of(volume).source, {}) as fd:
        return btrfs.subvolume_info(fd).id


def _named(volume: Volume) -> tuple[str, str] | None:
    """Where the subvolume is named that is mounted at boot, and as what."""
    ours = [one for one in _options(volume) if volume.mountpoint != "/" or one[0] == COMMAND_LINE]
    named = [(where, option[7:].strip("/")) for where, options in ours for option in options if _names(option)]
    return named[-1] if named else None


def _names(option: str) -> bool:
    return option.startswith("subvol=")


def _options(volume: Volume) -> Iterator[tuple[str, list[str]]]:
    """What fstab(5) and, of the root, the kernel's command line say of the mount."""
    if volume.mountpoint == "/":
        with open(COMMAND_LINE, encoding="utf-8", errors="surrogateescape") as file:
            flags = [word[10:] for word in file.read().split() if word.startswith("rootflags=")]
        yield COMMAND_LINE, ",".join(flags).split(",")
    for line in read_fstab(FSTAB):
        if line.mountpoint.rstrip("/") == volume.mountpoint.rstrip("/"):
            yield FSTAB, list(line.options)
