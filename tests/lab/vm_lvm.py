"""User-mode Linux with LVM: volume groups on disks of their own under a root on ext4."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tests.lab import debian, system, uml, vm_image
from tests.lab.vm_judge import JudgedVm

RECIPE = replace(
    system.RECIPE,
    name="lvm",
    include=(*system.INCLUDE, "lvm2", "thin-provisioning-tools"),
    masked=(*system.MASKED, "lvm2-monitor.service", "lvm2-lvmpolld.socket", "blk-availability.service"),
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
