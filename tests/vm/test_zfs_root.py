"""A root on ZFS, booted by Debian's own initramfs: the system as scope, and power cuts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import soak, vm_zfs_root
from tests.lab.vm_zfs import ZfsVm
from tests.vm.conftest import booted
from tests.vm.power_cuts import PowerCuts

PHASES = ("run", "restore", "commit")


def test_power_cuts_on_a_root_of_zfs(lab: Path) -> None:
    if reason := ZfsVm.missing():
        pytest.skip(reason)
    vm = vm_zfs_root.create(lab)
    try:
        cuts = PowerCuts.on(booted(vm))
        assert vm.run("findmnt", "-no", "FSTYPE,SOURCE", "/").stdout.split() == ["zfs", vm_zfs_root.DATASET]
        told = vm.sh("snapbreaker doctor")
        for point in ("/", "/home", "/opt"):
            assert f"\n{point}: zfs  (zfs on rpool" in f"\n{told}"
        dice = soak.dice(5)
        for number in range(soak.times(len(PHASES))):
            phase = PHASES[number % len(PHASES)]
            print(f"zfs: cut {number + 1} in {phase}:", cuts.cut(phase, dice))
    finally:
        vm.close()
