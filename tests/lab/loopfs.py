"""Small real filesystems on loop devices: ext4, xfs, btrfs."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.lab.errors import LabError as LabError
from tests.lab.sessions import detach, mounts_below, unmount

FSTYPES = ("ext4", "xfs", "btrfs")
MKFS = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "256", "-E", "lazy_itable_init=1,lazy_journal_init=1"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
PACKAGE = {"ext4": "e2fsprogs", "xfs": "xfsprogs", "btrfs": "btrfs-progs"}
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class LoopFilesystem:
    """One mounted filesystem. ``device`` is the loop device, ``projects`` whether it keeps project ids."""

    path: Path
    fstype: str
    device: str
    image: Path
    projects: bool

    def close(self) -> list[str]:
        """Unmount everything at and below it and free its image. Returns what still used it and was killed."""
        left = [user for mountpoint in mounts_below(self.path) for user in unmount(mountpoint)]
        detach(self.image)
        self.image.unlink(missing_ok=True)
        self.path.rmdir()
        return left


def missing_for(fstype: str) -> str:
    """What keeps this machine from making such a filesystem, with the remedy; empty when nothing does."""
    if os.geteuid() != 0:
        return "needs root for mount(2): run the tests as root"
    if not shutil.which(MKFS[fstype][0]):
        return f"{MKFS[fstype][0]} is missing: apt-get install {PACKAGE[fstype]}"
    if not os.path.exists("/dev/loop-control"):
        return "/dev/loop-control is missing: modprobe loop"
    known = Path("/proc/filesystems").read_text().split()
    if fstype not in known and subprocess.run(["modprobe", "-q", fstype]).returncode:
        return f"the kernel has no {fstype}: load its module"
    return ""


def make(fstype: str, session: Path, name: str, size: int = GIB, options: str = "noatime") -> LoopFilesystem:
    """Make a sparse image of ``size`` bytes below ``session``, mount it at ``session/name``."""
    projects = fstype == "xfs" or (fstype == "ext4" and ext4_projects(session))
    extra = ["-O", "project,quota"] if fstype == "ext4" and projects else []
    return _make(fstype, session, name, size, options, extra, projects)


@cache
def ext4_projects(session: Path) -> bool:
    """Whether this kernel mounts an ext4 with project ids (CONFIG_QUOTA and CONFIG_QFMT_V2)."""
    try:
        probe = _make("ext4", session, "probe", 32 << 20, "noatime", ["-O", "project,quota"], True)
    except LabError:
        return False
    probe.close()
    return True


def _make(
    fstype: str, session: Path, name: str, size: int, options: str, extra: list[str], projects: bool
) -> LoopFilesystem:
    image, mountpoint = session / f"{name}.img", session / name
    with image.open("xb") as file:
        file.truncate(size)
    mountpoint.mkdir()
    try:
        _run([*MKFS[fstype], *extra, str(image)])
        _run(["mount", "-t", fstype, "-o", f"loop,{options}", str(image), str(mountpoint)])
    except LabError:
        detach(image)
        image.unlink()
        mountpoint.rmdir()
        raise
    return LoopFilesystem(mountpoint, fstype, _source(mountpoint), image, projects)


def _source(mountpoint: Path) -> str:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == str(mountpoint):
            return fields[fields.index("-") + 2]
    raise LabError(f"{mountpoint} is not mounted")


def _run(argv: list[str]) -> None:
    result = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if result.returncode:
        raise LabError(f"{' '.join(argv)} ended with {result.returncode}: {result.stderr.strip()}")
