"""User-mode Linux with LVM: volume groups on disks of their own under a root on ext4. See ``vm_lvm_root.py``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tests.lab import debian, system, uml, vm_image
from tests.lab.vm_judge import JudgedVm

RECIPE = replace(
    system.RECIPE,
    name="lvm",
    include=(*system.INCLUDE, "lvm2", "thin-provisioning-tools", "initramfs-tools"),
    # install-service would make an initramfs, which takes minutes in a VM.
    files={**system.RECIPE.files, "etc/initramfs-tools/update-initramfs.conf": (0o644, "update_initramfs=no\n")},
    # Not lvm2-monitor.service: a power off waits 90 s for dmeventd where nobody ends its monitoring.
    masked=(*system.MASKED, "lvm2-lvmpolld.socket", "blk-availability.service"),
)


@dataclass(slots=True)
class LvmVm(JudgedVm):
    """As ``Uml``."""

    @staticmethod
    def golden() -> Path:
        return vm_image.golden(kernel(), RECIPE)


def kernel() -> vm_image.Kernel:
    """The installed one; the image has a name of its own."""
    return replace(uml.kernel(), name="uml-lvm")


def prepare() -> None:
    """Make all that takes minutes once a machine."""
    debian.golden(RECIPE)
    LvmVm.golden()
