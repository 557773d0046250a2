"""User-mode Linux whose root is a logical volume, thin or classic, found by Debian's own initramfs."""

from __future__ import annotations

import subprocess
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

from tests.lab import cache, sessions, uml, vm_image, vm_lvm
from tests.lab.vm_judge import JudgedVm
from tests.lab.vm_roots import LIBRARY, PROVISION

DISK, INITRD = "disk", "initrd"
RECIPE = replace(vm_lvm.RECIPE, name="lvm-root", include=(*vm_lvm.RECIPE.include, "initramfs-tools"))
# The thin one is made by the script of the Vagrant box; the classic one differs in its volume alone.
THIN = "sh /run/provision/lvm.sh"
CLASSIC = r"""
sed '/--type thin-pool/d; /^size=/d; s/^lvcreate.*--thin .*/lvcreate --quiet --extents 60%VG --name root system/' \
    /run/provision/lvm.sh >/run/provision/classic.sh
sh /run/provision/classic.sh"""
KINDS = {"thin": THIN, "classic": CLASSIC}
INITRAMFS = """
printf 'CONFIG_RD_GZIP=y\n' >/boot/config-$(uname -r)
printf 'dm_mod\ndm_snapshot\ndm_thin_pool\n' >>/etc/initramfs-tools/modules
update-initramfs -c -k $(uname -r)
cp /boot/initrd.img-$(uname -r) /run/lab/initrd
"""


@dataclass(slots=True)
class LvmRootVm(JudgedVm):
    """As ``Uml``, on an ordinary root unless ``create`` below made it."""

    @staticmethod
    def golden() -> Path:
        return vm_image.golden(replace(uml.kernel(), name="uml-lvm-root"), RECIPE)


def create(session: Path, kind: str) -> LvmRootVm:
    """A VM, not booted, on a copy of such a disk; made when the cache has none (about a minute)."""
    disk, initrd = session / f"lvm-{kind}.img", session / f"lvm-{kind}.initrd"
    if not disk.exists():
        with tarfile.open(_packed(session, kind)) as tar:
            for name, place in ((DISK, disk), (INITRD, initrd)):
                tar.extract(name, session, filter="data")
                (session / name).rename(place)
    return LvmRootVm.create(session, disk, root="/dev/mapper/system-root", initrd=initrd)


def _packed(session: Path, kind: str) -> Path:
    scripts = {file.name: file.read_text() for file in (LIBRARY, PROVISION / "lvm.sh")}
    key = [KINDS[kind], INITRAMFS, scripts, vm_image.SIZE, str(LvmRootVm.golden())]

    def make(work: Path, result: Path) -> None:
        subprocess.run(["truncate", "-s", vm_image.SIZE, work / DISK], check=True)
        vm = LvmRootVm.create(session)
        vm.disks.append(work / DISK)
        try:
            vm.boot()
            for name, text in scripts.items():
                vm.put(text.encode(), f"/run/provision/{name}")
            vm.sh(INITRAMFS + KINDS[kind], timeout=600)
            (work / INITRD).write_bytes((vm.share / INITRD).read_bytes())
            vm.power_off()
        finally:
            vm.disks.remove(work / DISK)
            vm.close()
        subprocess.run(["tar", "-C", work, "--sparse", "-cf", result, DISK, INITRD], check=True)

    return cache.made_once(f"vm-lvm-{kind}", key, make)


if __name__ == "__main__":  # makes all that takes minutes once a machine
    if not LvmRootVm.missing():
        vm_lvm.prepare()
        session = sessions.open_session()
        try:
            for wanted in KINDS:
                create(session, wanted).close()
        finally:
            sessions.close_session(session)
