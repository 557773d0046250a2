"""How datasets are called, asked for and changed by name (zfs(8), zpool(8)): for what happens at a boot.

The tree of datasets that the root is mounted from changes its name as a whole. PLACE is what boots; a checkpoint
called NAME is put together as PLACE.NAME.new, and what it displaces becomes PLACE.NAME.old.
"""

from __future__ import annotations

from collections.abc import Sequence

from snapbreaker import commands
from snapbreaker.backend import Volume
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import ToolError
from snapbreaker.linux.mountinfo import read_mounts
from snapbreaker_backends.zfs import datasets

PREFIX = "org.snapbreaker:"
IN_PLACE_OF = PREFIX + "in-place-of"  # of a tree to come: PLACE
CANMOUNT = PREFIX + "canmount"  # of each of its datasets: what that property is to be once it is in place


@dataclass(frozen=True, slots=True)
class Names:
    """``root`` is what `/` is mounted from, as it is called now; ``inside`` leads from there to the volume's own
    dataset: empty, or ``/opt``.
    """

    root: str
    inside: str
    place: str
    new: str
    old: str

    @property
    def has_moved(self) -> bool:
        """Whether what runs was displaced."""
        return self.root == self.old


def names_of(volume: Volume, checkpoint: str) -> Names | None:
    """None where the volume's dataset is not one of the tree that the root is mounted from. Raises CheckpointError
    where none is mounted.
    """
    root, own = root_dataset(), datasets.mount_of(volume).source
    if root != own and not own.startswith(root + "/"):
        return None
    place = root.removesuffix(f".{checkpoint}.old")
    return Names(root, own[len(root) :], place, f"{place}.{checkpoint}.new", f"{place}.{checkpoint}.old")


def root_dataset() -> str:
    """Empty where the root is no dataset."""
    found = [mount.source for mount in read_mounts() if mount.mountpoint == "/" and mount.fstype == "zfs"]
    return found[-1] if found else ""


def zfs(*words: str) -> str:
    """Raises ToolError."""
    return commands.run(["zfs", *words], timeout=None).stdout


def exists(dataset: str) -> bool:
    """Raises ToolError where that is not known."""
    try:
        zfs("list", "-Ho", "name", dataset)
    except ToolError as error:
        if "does not exist" not in error.stderr:
            raise
        return False
    return True


def below(dataset: str, types: str = "filesystem") -> list[str]:
    """``dataset`` with all below it, each behind the one that it lies in; none where it does not exist."""
    try:
        return zfs("list", "-Hro", "name", "-t", types, dataset).splitlines()
    except ToolError:
        if exists(dataset):
            raise
        return []


def value(dataset: str, what: str) -> str:
    """A property; ``-`` where it has none."""
    return zfs("get", "-Hpo", "value", what, dataset).rstrip("\n")


def own_properties(dataset: str) -> list[str]:
    """``-o`` options that give a new dataset what is set on this one itself, but for what decides of mounting."""
    listed = zfs("get", "-Hps", "local,received", "-o", "property,value", "all", dataset).splitlines()
    pairs = [line.split("\t", 1) for line in listed]
    unlike = ("canmount", "keylocation")
    wanted = [f"{key}={text}" for key, text in pairs if key not in unlike and not key.startswith(PREFIX)]
    return [word for pair in wanted for word in ("-o", pair)]


def boot_dataset(pool: str) -> str:
    return commands.run(["zpool", "get", "-Ho", "value", "bootfs", pool]).stdout.strip()


def boot_from(dataset: str) -> None:
    """As the pool's ``bootfs``, which follows a dataset that is renamed."""
    commands.run(["zpool", "set", f"bootfs={dataset}", datasets.pool_of(dataset)])


def rename(old: str, new: str) -> None:
    """With all below it; what is mounted stays mounted. On disk when this returns."""
    zfs("rename", "-u", old, new)


def destroy(trees: Sequence[str]) -> list[str]:
    """Datasets with all below them that is a filesystem. Returns what could not go: it has snapshots, clones or
    volumes of others.
    """
    left = []
    for tree in trees:
        for dataset in reversed(below(tree)):
            try:
                zfs("destroy", dataset)
            except ToolError as error:
                if "busy" in error.stderr:
                    raise
                left.append(dataset)
    return left
