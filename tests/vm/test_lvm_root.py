"""A root on LVM, thin and classic, found by Debian's own initramfs: put back live, and after power cuts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import soak, vm_lvm_root
from tests.lab.vm_lvm import LvmVm
from tests.vm.conftest import booted
from tests.vm.power_cuts import PowerCuts

ROUNDS = ("run", "restore", "create", "commit")


@pytest.mark.parametrize("kind", vm_lvm_root.KINDS)
def test_a_root_goes_back(kind: str, lab: Path) -> None:
    """From its snapshot; none is left afterwards, whenever the power went."""
    if reason := LvmVm.missing():
        pytest.skip(reason)
    vm = vm_lvm_root.create(lab, kind)
    try:
        booted(vm)
        assert vm.sh("findmnt -no SOURCE /") == "/dev/mapper/system-root\n"
        assert "/: lvm  (ext4" in vm.sh("snapbreaker doctor")
        cuts = PowerCuts.on(vm)
        dice = soak.dice(len(kind))
        for number in range(soak.times(len(ROUNDS))):
            phase = ROUNDS[number % len(ROUNDS)]
            print(f"{kind}: cut {number + 1} in {phase}:", cuts.cut(phase, dice))
            assert vm.sh("lvs --noheadings -o lv_name -S origin=root") == ""
    finally:
        vm.close()
