"""Disks with the booted Debian on ext4, xfs or btrfs: an image for each, made once and copied for each machine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab import cache, container, debian, loopfs, sessions, subvolumes, system
from tests.lab.errors import LabError

SIZE = 2 * loopfs.GIB
# xfs: copies of one image have one UUID. btrfs: as most distributions install it.
OPTIONS = {"ext4": "noatime", "xfs": "noatime,nouuid", "btrfs": "noatime,subvol=@"}
VERSION = 3


@dataclass(frozen=True, slots=True)
class Disk:
    """A loop device that keeps its name, and the place where its root is mounted."""

    image: Path
    path: Path
    fstype: str
    device: str

    @property
    def mount_arguments(self) -> tuple[str, str, str]:
        """Device, type and options of the root."""
        return self.device, self.fstype, OPTIONS[self.fstype]

    def mount(self) -> None:
        device, fstype, options = self.mount_arguments
        _run("mount", "-t", fstype, "-o", options, device, str(self.path))

    def unmount(self) -> list[str]:
        """Returns the processes that still used it and were killed."""
        return [user for mountpoint in sessions.mounts_below(self.path) for user in sessions.unmount(mountpoint)]

    def remount(self) -> None:
        """Mount what is the root now: after a rollback of a btrfs ``@`` is another subvolume.

        LabError when a process outside of the machine has something of it open.
        """
        _run("umount", str(self.path))
        self.mount()

    @contextmanager
    def top_level(self) -> Iterator[Path]:
        """The top level of a btrfs (the root of any other), mounted for a while beside the root."""
        where = self.path.with_name(self.path.name + ".top")
        where.mkdir()
        try:
            options = "noatime,subvolid=5" if self.fstype == "btrfs" else OPTIONS[self.fstype]
            _run("mount", "-t", self.fstype, "-o", options, self.device, str(where))
            try:
                yield where
            finally:
                sessions.unmount(str(where))
        finally:
            where.rmdir()

    def close(self) -> list[str]:
        """Give everything back. Returns the processes that still used it and were killed."""
        left = self.unmount()
        detach(self.image)
        self.image.unlink(missing_ok=True)
        self.path.rmdir()
        return left


def missing(fstype: str) -> str:
    """What keeps this machine from making such a disk, with the remedy; empty when nothing does."""
    return debian.missing() or loopfs.missing_for(fstype)


def copy(fstype: str, session: Path, name: str) -> Disk:
    """A new disk from the image of ``fstype``, mounted at ``session/name``."""
    image, path = session / f"{name}.img", session / name
    _run("cp", "--sparse=always", str(golden(fstype, session)), str(image))
    path.mkdir()
    try:
        disk = attach(image, path, fstype)
        disk.mount()
    except LabError:
        detach(image)
        image.unlink()
        path.rmdir()
        raise
    return disk


def attach(image: Path, path: Path, fstype: str) -> Disk:
    return Disk(image, path, fstype, _run("losetup", "--find", "--show", str(image)).strip())


def detach(image: Path) -> None:
    """Until it is really gone: a mount in a namespace that is about to end, that of another test maybe, holds the
    loop device meanwhile.
    """
    deadline = time.monotonic() + 120
    while _run("losetup", "-n", "-O", "NAME", "-j", str(image)).strip():
        sessions.detach(image)
        if time.monotonic() > deadline:
            raise LabError(f"{image} stays attached")
        time.sleep(0.005)


def golden(fstype: str, session: Path) -> Path:
    """The image with the root on ``fstype``; ``session`` is where it is made when the cache has none."""
    recipe = [system.RECIPE.key(), fstype, SIZE, loopfs.MKFS[fstype], VERSION]
    return cache.made_once(f"system-{fstype}", recipe, lambda _work, result: _make(fstype, session, result))


def _make(fstype: str, session: Path, result: Path) -> None:
    debian.golden(system.RECIPE)
    filesystem = loopfs.make(fstype, session, f"golden-{fstype}", SIZE)
    try:
        root = filesystem.path
        if fstype == "btrfs":
            root = filesystem.path / "@"
            subvolumes.create(root)
        debian.unpack(root, system.RECIPE)
        sessions.unmount(str(filesystem.path))
        disk = attach(filesystem.image, filesystem.path, fstype)
        disk.mount()
        _boot_once(disk, session)
        for journal in disk.path.glob("var/log/journal/*/*"):
            journal.unlink()
        disk.unmount()
        _run("cp", "--sparse=always", str(disk.image), str(result))
    finally:
        filesystem.close()


def _boot_once(disk: Disk, session: Path) -> None:
    """A first boot makes directories and links; later ones then find everything in place and change nothing."""
    cgroup, console = f"{session.name}.{disk.path.name}", session / f"{disk.path.name}.console"
    first = container.start(cgroup, disk.path, disk.mount_arguments, console)
    try:
        if (state := container.settle(first)) != "running":
            failed = first.systemctl("list-units", "--failed", timeout=10)
            raise LabError(f"the golden root boots to {state}:\n{failed}")
        first.halt()
    finally:
        first.kill()
        console.unlink()


def _run(*argv: str) -> str:
    result = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if result.returncode:
        raise LabError(f"{' '.join(argv)} ended with {result.returncode}: {result.stderr.strip()}")
    return result.stdout
