"""User-mode Linux whose root is a dataset, mounted by Debian's own initramfs (zfs-initramfs)."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

from snapbreaker.checkpoint import store
from snapbreaker.system import boot_files
from snapbreaker_backends.zfs.place import FIRST_AID
from tests.lab import cache, vm_image
from tests.lab.vm_zfs import ZfsVm

DATASET = "rpool/ROOT/debian"
DISK, INITRD = "disk", "initrd"
# As OpenZFS's guide for Debian has it, with one child that holds a part of the system.
MAKE = """
zgenhostid -f
options="-o ashift=12 -O compression=lz4 -O acltype=posixacl -O xattr=sa -O mountpoint=none"
zpool create -f $options -R /mnt rpool /dev/ubdb
zfs create -o mountpoint=none rpool/ROOT
zfs create -o canmount=noauto -o mountpoint=/ rpool/ROOT/debian
zfs mount rpool/ROOT/debian
zfs create rpool/ROOT/debian/opt
zfs create -o mountpoint=/home rpool/home
cp --archive --one-file-system /. /mnt
zpool set bootfs=rpool/ROOT/debian rpool
zpool set cachefile=/etc/zfs/zpool.cache rpool
cp /etc/zfs/zpool.cache /mnt/etc/zfs/
install -m 755 /run/lab/hook /etc/initramfs-tools/scripts/local-bottom/snapbreaker
echo CONFIG_RD_GZIP=y >/boot/config-$(uname -r)
update-initramfs -c -k $(uname -r)
cp /boot/initrd.img-$(uname -r) /run/lab/initrd
sync
zpool export rpool
"""


def create(session: Path) -> ZfsVm:
    """A VM, not booted, on a copy of such a disk; made when the cache has none (about a minute)."""
    disk, initrd = session / "zfs-root.img", session / "zfs-root.initrd"
    if not disk.exists():
        with tarfile.open(_packed(session)) as tar:
            tar.extract(DISK, session, filter="data")
            tar.extract(INITRD, session, filter="data")
        (session / DISK).rename(disk)
        (session / INITRD).rename(initrd)
    return ZfsVm.create(session, disk, root=f"ZFS={DATASET}", initrd=initrd)


def _packed(session: Path) -> Path:
    hook = boot_files.hook(Path(store.DEFAULT), FIRST_AID)
    key = [MAKE, hook, vm_image.SIZE, str(ZfsVm.golden())]

    def make(work: Path, result: Path) -> None:
        subprocess.run(["truncate", "-s", vm_image.SIZE, work / DISK], check=True)
        vm = ZfsVm.create(session)
        vm.disks.append(work / DISK)
        try:
            vm.boot()
            (vm.share / "hook").write_text(hook)
            vm.sh(MAKE, timeout=600)
            (work / INITRD).write_bytes((vm.share / INITRD).read_bytes())
            vm.power_off()
        finally:
            vm.disks.remove(work / DISK)
            vm.close()
        subprocess.run(["tar", "-C", work, "--sparse", "-cf", result, DISK, INITRD], check=True)

    return cache.made_once("vm-zfs-root", key, make)
