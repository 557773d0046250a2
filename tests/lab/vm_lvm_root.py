"""User-mode Linux whose root is a logical volume, thin or classic, found by Debian's own initramfs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from snapbreaker.checkpoint import store
from snapbreaker.linux import udev
from snapbreaker.system import boot_files, service
from snapbreaker_backends.lvm.backend import LvmBackend
from tests.lab import cache, debian, sessions, vm_image, vm_lvm
from tests.lab.vm_lvm import LvmVm
from tests.lab.vm_roots import LIBRARY, PROVISION

# The thin one is made by the script of the Vagrant box; the classic one differs in its volume alone.
THIN = "sh /run/provision/lvm.sh"
CLASSIC = r"""
sed '/--type thin-pool/d; /^size=/d; s/^lvcreate.*--thin .*/lvcreate --quiet --extents 30%VG --name root system/' \
    /run/provision/lvm.sh >/run/provision/classic.sh
sh /run/provision/classic.sh"""
KINDS = {"thin": THIN, "classic": CLASSIC}
MODULES = "dm_mod\ndm_snapshot\ndm_thin_pool\n"


def create(session: Path, kind: str) -> LvmVm:
    """A VM, not booted, on a copy of such a disk; made when the cache has none (half a minute)."""
    return LvmVm.create(session, disk(session, kind), root="/dev/mapper/system-root", initrd=initrd())


def disk(session: Path, kind: str) -> Path:
    scripts = {file.name: file.read_text() for file in (LIBRARY, PROVISION / "lvm.sh")}

    def make(_work: Path, result: Path) -> None:
        subprocess.run(["truncate", "-s", vm_image.SIZE, result], check=True)
        vm = LvmVm.create(session)
        vm.disks.append(result)
        try:
            vm.boot()
            for name, text in scripts.items():
                vm.put(text.encode(), f"/run/provision/{name}")
            vm.sh(KINDS[kind], timeout=300)
            vm.power_off()
        finally:
            vm.disks.remove(result)
            vm.close()

    return cache.made_once(f"vm-lvm-{kind}", [KINDS[kind], scripts, vm_image.SIZE, str(LvmVm.golden())], make)


def initrd() -> Path:
    """Debian's, for both kinds, as after install-service."""
    texts = {
        service.HOOK: service.hook(Path(store.DEFAULT)),
        service.TAKES_RULES: boot_files.takes(udev.FOR_GOOD),
        udev.FOR_GOOD: LvmBackend.udev_rules,
    }
    kernel = vm_lvm.kernel()

    def make(work: Path, result: Path) -> None:
        root = work / "root"
        vm_image.fill(root, kernel, vm_lvm.RECIPE)
        for path, text in texts.items():
            place = root / path.relative_to("/")
            place.write_text(text)
            place.chmod(0o755)
        (root / f"boot/config-{kernel.release}").write_text("CONFIG_RD_GZIP=y\n")
        with (root / "etc/initramfs-tools/modules").open("a") as modules:
            modules.write(MODULES)
        debian.chroot(root, "update-initramfs", "-c", "-k", kernel.release)
        shutil.copyfile(root / f"boot/initrd.img-{kernel.release}", result)

    return cache.made_once("vm-lvm-initrd", [*texts.values(), MODULES, kernel.release, str(LvmVm.golden())], make)


if __name__ == "__main__":  # makes all that takes minutes once a machine
    if not LvmVm.missing():
        vm_lvm.prepare()
        session = sessions.open_session()
        try:
            initrd()
            for wanted in KINDS:
                disk(session, wanted)
        finally:
            sessions.close_session(session)
