"""Whether another tree of datasets can take the place of the one that the root is mounted from, at the next boot.

What is mounted then is said by the kernel's command line, by name, or else by the pool's property ``bootfs``
(initramfs-tools' scripts/zfs of zfs-initramfs; dracut.zfs(7)).
"""

from __future__ import annotations

from collections.abc import Iterator

from snapbreaker import commands
from snapbreaker.backend import Reason, Stored
from snapbreaker_backends.zfs import datasets, names

COMMAND_LINE = "/proc/cmdline"
# Run in an initramfs once a root was looked for, and where none was found: then the power went between the two
# renames of `exchange`. What Debian's script does itself (keys, mount points) it does in the boot that follows.
FIRST_AID = f"""\
case $ROOT in ZFS=* | zfs:*)
	place=${{ROOT#*[:=]}}
	zfs list "$place" >/dev/null 2>&1 ||
		zfs list -Ho name,{names.IN_PLACE_OF} -r "${{place%%/*}}" 2>/dev/null |
		while read -r new wanted; do
			[ "$wanted" != "$place" ] || ! zfs rename -u "$new" "$place" || reboot -f
		done
	;;
esac
"""


def refusals(stored: Stored) -> Iterator[Reason]:
    """Why none can take the place of this one. Raises CheckpointError, OSError."""
    volume, checkpoint = stored.volume, stored.data["name"]
    own = names.names_of(volume, checkpoint)
    if own is None:
        yield Reason(
            f"the root is not mounted from {datasets.mount_of(volume).source}: its files go back one by one"
        )
        return
    if volume.root != volume.mountpoint:
        point = volume.mountpoint
        yield Reason(f"only {volume.root} of it is in scope, and it goes back as a whole", f"--scope {point}")
        return
    if "/" not in own.root:
        yield Reason(
            f"{own.root} is the top of its pool and cannot be renamed", "have the root in a dataset of its own"
        )
        return
    if not (commands.installed("zfs") and commands.installed("zpool")):
        yield Reason("zfs is not installed", "apt-get install zfsutils-linux")
        return
    if own.inside and not names.exists(f"{own.root}@{checkpoint}"):
        yield Reason(f"the checkpoint does not hold {own.root}, from which / is mounted", "--scope /")
        return
    if reason := _booted_otherwise(own.place):
        yield reason


def _booted_otherwise(place: str) -> Reason | None:
    named = named_at_boot()
    if not named:
        pool = datasets.pool_of(place)
        boots = names.boot_dataset(pool)
        return None if boots == place else Reason(f"{pool} boots {boots}", f"zpool set bootfs={place} {pool}")
    # The pool may be named by its guid.
    if named.partition("/")[2] == place.partition("/")[2]:
        return None
    return Reason(f"{COMMAND_LINE} names {named}, and / is {place}", "boot it by its name")


def named_at_boot() -> str:
    """The dataset that the kernel's command line names; empty where it leaves that to ``bootfs``. OSError."""
    with open(COMMAND_LINE, encoding="utf-8", errors="surrogateescape") as file:
        words = [word.partition("=") for word in file.read().split()]
    for wanted in ("bootfs", "root"):
        for key, _, text in words:
            name = text.removeprefix("ZFS=").removeprefix("zfs:")
            if key == wanted and "/" in name and not name.startswith("/"):
                return name
    return ""
