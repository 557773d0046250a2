"""User-mode Linux with OpenZFS, its tools and its library: pools on disks of their own under a root on ext4."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

from tests.lab import debian, system, uml, vm_image, zfs_modules
from tests.lab.uml import Uml
from tests.lab.vm_judge import JudgedVm

# As Debian's own, without waiting for udev to settle: a disk that is not there at once never comes.
IMPORT = """[Unit]
Description=Import ZFS pools by cache file
DefaultDependencies=no
Before=zfs-import.target
ConditionFileNotEmpty=/etc/zfs/zpool.cache
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStartPre=modprobe zfs
ExecStart=zpool import -c /etc/zfs/zpool.cache -aN
[Install]
WantedBy=zfs-import.target
"""
# zfs-initramfs wants the modules' source, and that a compiler; `zfs_modules` brings them built.
COMPILER = (
    *("zfs-dkms", "dkms", "gcc", "gcc-12", "cpp", "cpp-12", "binutils*", "libbinutils", "libgcc-12-dev"),
    *(
        "libc6-dev",
        "libc-dev-bin",
        "linux-libc-dev",
        "libasan*",
        "libtsan*",
        "liblsan*",
        "libubsan*",
        "libgprofng*",
    ),
)


def _remove_compiler(root: Path) -> None:
    listed = debian.chroot(root, "dpkg-query", "-Wf", "${Package}\n", *COMPILER).stdout.split()
    debian.chroot(root, "dpkg", "--purge", "--force-depends", *listed)


RECIPE = replace(
    system.RECIPE,
    name="zfs",
    include=(*system.INCLUDE, "zfsutils-linux", "python3-pyzfs", "zfs-initramfs", "busybox", "lvm2"),
    repository=(),
    files={**system.FILES, "etc/systemd/system/zfs-import-cache.service": (0o644, IMPORT)},
    masked=(
        *("lvm2-monitor.service", "lvm2-lvmpolld.socket", "blk-availability.service"),
        *(*system.MASKED, "zfs-volume-wait.service", "zfs-import-scan.service", "zfs-share.service"),
    ),
    finish=_remove_compiler,
    version=2,
    components="main contrib",
)


_numbers = itertools.count(1)


@dataclass(slots=True)
class ZfsVm(JudgedVm):
    """As ``Uml``."""

    @staticmethod
    def missing() -> str:
        return Uml.missing() or zfs_modules.missing()

    @staticmethod
    def golden() -> Path:
        return vm_image.golden(kernel(), RECIPE)


def disks(session: Path, *sizes: int) -> list[Path]:
    """Empty ones, in bytes, which take what is written to them. No other VM of the session has them."""
    made = [session / f"{next(_numbers)}.disk" for _ in sizes]
    for path, size in zip(made, sizes, strict=True):
        with path.open("wb") as file:
            file.truncate(size)
    return made


def kernel() -> vm_image.Kernel:
    """The installed one, with OpenZFS beside its own modules."""
    plain = uml.kernel()

    def modules(directory: Path) -> None:
        plain.modules(directory)
        zfs_modules.unpack(directory, plain.release)

    return replace(plain, name="uml-zfs", modules=modules)


if __name__ == "__main__":  # makes all that takes minutes once a machine
    if not ZfsVm.missing():
        ZfsVm.golden()
