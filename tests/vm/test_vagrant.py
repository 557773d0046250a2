"""What the Vagrant boxes are made of, and the acceptance tests that run in them, run here first (``vagrant/``)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lab import soak, vm_roots
from tests.lab.uml import Uml
from tests.lab.vm import Vm
from tests.lab.vm_lvm import LvmVm
from tests.lab.vm_zfs import ZfsVm, disks
from tests.vm.conftest import MakeVm, booted

VAGRANT = Path(__file__).resolve().parents[2] / "vagrant"
BOXES = ("ext4", "btrfs", "lvm", "zfs")


def vagrant(home: Path, *words: str) -> str:
    if not shutil.which("vagrant"):
        pytest.skip("vagrant is missing: apt-get install vagrant")
    environment = {**os.environ, "VAGRANT_HOME": str(home), "VAGRANT_DOTFILE_PATH": str(home / "dot")}
    done = subprocess.run(["vagrant", *words], capture_output=True, text=True, cwd=VAGRANT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_vagrantfile_is_valid(tmp_path: Path) -> None:
    """No provider is needed for that. Each box has its script."""
    assert "Vagrantfile validated successfully" in vagrant(tmp_path, "validate", "--ignore-provider")
    for box in BOXES[1:]:
        assert (VAGRANT / "provision" / f"{box}.sh").exists()
    assert {line.split()[0] for line in (VAGRANT / "Vagrantfile").read_text().splitlines() if "=>" in line} == {
        f'"{box}"' for box in BOXES
    }


def accepted(vm: Vm) -> None:
    script = vm.put(VAGRANT / "acceptance.sh", "/run/acceptance.sh")
    done = vm.run("sh", script, timeout=300)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("acceptance: all promises were kept\n")


@soak.only_long
def test_acceptance_on_ext4(make_vm: MakeVm) -> None:
    accepted(booted(make_vm()))


def test_the_zfs_box_is_whole(lab: Path) -> None:
    if reason := ZfsVm.missing():
        pytest.skip(reason)
    vm = ZfsVm.create(lab, None, disks(lab, 1 << 30))
    try:
        booted(vm)
        for name in ("lib", "zfs"):
            vm.put(VAGRANT / f"provision/{name}.sh", f"/run/provision/{name}.sh")
        vm.sh("sh /run/provision/zfs.sh")
        assert vm.run("findmnt", "-no", "FSTYPE,SOURCE", "/srv").stdout.split() == ["zfs", "data"]
        if soak.IS_LONG:
            accepted(vm)
    finally:
        vm.close()


def test_the_lvm_box_is_whole(lab: Path) -> None:
    """These VMs do not boot from LVM, which takes an initramfs."""
    if reason := LvmVm.missing():
        pytest.skip(reason)
    vm = LvmVm.create(lab, disks=disks(lab, 3 << 30))
    try:
        booted(vm)
        for name in ("lib.sh", "lvm.sh"):
            vm.put(VAGRANT / "provision" / name, f"/run/provision/{name}")
        vm.sh("sh /run/provision/lvm.sh")
        assert vm.sh("lvs --noheadings -o segtype,pool_lv system/root").split() == ["thin", "pool"]
        vm.sh("mount /dev/system/root /mnt; chroot /mnt dpkg --audit")
        assert "/dev/system/root / ext4 noatime" in vm.sh("cat /mnt/etc/fstab")
    finally:
        vm.close()


@soak.only_long
def test_acceptance_on_btrfs(lab: Path) -> None:
    if reason := Uml.missing():
        pytest.skip(reason)
    vm = vm_roots.create(lab, "btrfs")
    try:
        accepted(booted(vm))
        assert vm.run("findmnt", "-no", "FSTYPE,FSROOT", "/").stdout.split() == ["btrfs", "/@"]
    finally:
        vm.close()
