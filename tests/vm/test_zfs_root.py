"""A root on ZFS, booted by Debian's own initramfs: the system as scope, and power cuts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import comparer
from tests.lab import soak, vm_zfs_root
from tests.lab.vm_zfs import ZfsVm
from tests.vm.conftest import booted
from tests.vm.power_cuts import BEFORE, COMPARER, EXCLUDED, PowerCuts

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


def test_the_system_goes_back(vm: ZfsVm) -> None:
    vm.put(Path(comparer.__file__), COMPARER)
    vm.sh(f"sync; python3 {COMPARER} save / {BEFORE} {' '.join(EXCLUDED)}")
    change = "echo more >>/etc/issue; rm /usr/bin/lsattr; mv /etc/hosts /etc/h; echo x >/opt/x; mkdir /home/y"
    done = vm.snapbreaker("run", "--", "sh", "-c", f"{change}; echo Error: enough", timeout=240)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "/ (zfs), /home (zfs), /opt (zfs)" in done.stderr
    compared = vm.run("python3", COMPARER, "diff", "/", BEFORE, *EXCLUDED, timeout=120)
    assert compared.returncode == 0, compared.stdout


# A boot that has to compare all of a root takes too long beside other tests.
@soak.only_long
@pytest.mark.parametrize("number", range(soak.times(2)))
def test_power_cuts_on_a_root_of_zfs(cuts: PowerCuts, dice: random.Random, number: int) -> None:
    phase = PHASES[number % len(PHASES)]
    print(f"zfs: cut {number + 1} in {phase}:", cuts.cut(phase, dice))
