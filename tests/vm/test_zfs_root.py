"""A root on ZFS, booted by Debian's own initramfs: the system as scope, and power cuts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import soak, vm_zfs_root
from tests.lab.vm_zfs import ZfsVm
from tests.vm.conftest import booted
from tests.vm.power_cuts import PowerCuts

PHASES = ("run", "restore", "commit")


@pytest.fixture(scope="module")
def vm(lab: Path) -> Iterator[ZfsVm]:
    if reason := ZfsVm.missing():
        pytest.skip(reason)
    vm = vm_zfs_root.create(lab)
    try:
        booted(vm)
        yield vm
    finally:
        vm.close()


@pytest.fixture(scope="module")
def cuts(vm: ZfsVm) -> PowerCuts:
    return PowerCuts.on(vm)


@pytest.fixture(scope="module")
def dice() -> random.Random:
    return soak.dice(5)


def test_each_dataset_of_the_system_is_protected(vm: ZfsVm) -> None:
    assert vm.run("findmnt", "-no", "FSTYPE,SOURCE", "/").stdout.split() == ["zfs", vm_zfs_root.DATASET]
    told = vm.sh("snapbreaker doctor")
    for point in ("/", "/home", "/opt"):
        assert f"\n{point}: zfs  (zfs on rpool" in f"\n{told}"


@pytest.mark.parametrize("number", range(soak.times(2)))
def test_power_cuts_on_a_root_of_zfs(cuts: PowerCuts, dice: random.Random, number: int) -> None:
    phase = PHASES[number % len(PHASES)]
    print(f"zfs: cut {number + 1} in {phase}:", cuts.cut(phase, dice))
