"""A root on ZFS is replaced at the next boot: real reboots, and power cuts on both sides of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.lab import soak, vm_zfs_root
from tests.lab.errors import LabError
from tests.lab.vm_zfs import ZfsVm
from tests.vm.whole import (
    called_off,
    change,
    differences,
    forget,
    look,
    prepared,
    put_cutter,
    replaced,
    state,
    well,
)

PLACES = ("/", "/opt", "/home")
ROOT = vm_zfs_root.DATASET
CHANGING = "rename | set | clone | create | promote | inherit | destroy"
PREPARE = f"""
zfs create {ROOT}/data; zfs snapshot {ROOT}@older
mkdir -p /var/tmp/kept; echo old >/home/file; echo old >/opt/file; snapbreaker install-service >/dev/null
echo old >/var/log/service.log; echo old >/data/file
"""
CHANGE = """
rm /etc/hosts /usr/bin/lsattr; echo bad >>/etc/issue; useradd deploy; chmod 700 /srv; echo new >/home/file
echo new >/opt/file; echo x >/opt/more; echo new >/data/file
"""


@pytest.fixture(scope="module")
def machine(lab: Path) -> Iterator[ZfsVm]:
    if reason := ZfsVm.missing():
        pytest.skip(reason)
    vm = vm_zfs_root.create(lab)
    try:
        prepared(vm, PREPARE, ())
        put_cutter(vm, ("zfs", "zpool"), CHANGING)
        look(vm, PLACES)
        yield vm
    finally:
        vm.close()


def datasets(vm: ZfsVm) -> list[str]:
    return vm.sh("zfs list -Ho name,mounted,canmount,mountpoint -r rpool").splitlines()


def test_the_next_boot_is_on_the_checkpoint(machine: ZfsVm) -> None:
    vm = machine
    before = datasets(vm)
    change(vm, CHANGE)
    vm.sh(f"zfs snapshot {ROOT}@newer; zfs create {ROOT}/others; echo x >/others/file")
    told = [f"{place} becomes what it was at the next boot (zfs)" for place in ("/", "/opt")]
    replaced(vm, *told, "/home goes back early in the next boot (zfs)")
    assert differences(vm, PLACES) == "b'others': extra mountpoint\n"
    assert well(vm, "findmnt", "-no", "SOURCE", "/") == f"{ROOT}\n"
    assert well(vm, "cat", "/data/file", "/others/file").split() == ["new", "x"]
    snapshots = vm.sh("zfs list -Ht snapshot -o name").split()
    assert f"{ROOT}@older" in snapshots
    newer = next(name for name in snapshots if name.endswith(".old@newer"))
    made = json.loads(well(vm, "snapbreaker", "report", "--last", "--format", "json"))["id"]
    assert newer.partition("@")[0] in well(vm, "snapbreaker", "checkpoint", "delete", made, code=4)
    vm.sh(f"zfs destroy {newer}")
    forget(vm)
    vm.sh(f"zfs destroy {ROOT}/others; rm -df /others")
    assert datasets(vm) == before
    left = differences(vm, PLACES).splitlines()
    assert [line for line in left if not line.startswith("b'': mtime_ns")] == []  # of the directory that has gone
    well(vm, "snapbreaker", "run", "--", "true")
    forget(vm)
    look(vm, PLACES)


# Power cuts ahead of a command that changes something, in the run that schedules it and in the boots after it.
STEPS = [(6, 3)]
LONG = [(step, 0) for step in range(1, 7)] + [(0, step) for step in range(1, 8)]


@pytest.mark.parametrize("steps", LONG if soak.IS_LONG else STEPS, ids=str)
def test_a_power_cut_at_each_step(machine: ZfsVm, steps: tuple[int, int]) -> None:
    """A root is found at each boot, and in the end it is the checkpoint. The sixth is the second rename."""
    vm, (scheduling, booting) = machine, steps
    change(vm, CHANGE)
    if scheduling:
        vm.sh(f"echo 0 >/run/cut-count; echo {scheduling} >/run/cut-at")
        vm.start("snapbreaker", "rollback", "--last", "--at-boot", "--yes")
        assert vm.kernel
        vm.kernel.wait(120)
        vm.power_cut()
    else:
        well(vm, "snapbreaker", "rollback", "--last", "--at-boot", "--yes", code=5)
        vm.power_cut()
    if booting:
        vm.arguments = (f"cut_at={booting}",)
        with suppress(LabError):
            vm.boot(tries=1)
        vm.arguments = ()
    assert vm.alive or vm.boot() == "running"
    vm.sh("echo 0 >/run/cut-at")
    assert state(vm) == "rolled-back"
    assert differences(vm, PLACES) == ""
    forget(vm)
    assert [line for line in datasets(vm) if "snapbreaker" in line] == []


def test_it_is_called_off(machine: ZfsVm) -> None:
    vm = machine
    change(vm, CHANGE)
    before = datasets(vm)
    called_off(vm)
    well(vm, "id", "deploy")
    assert datasets(vm) == before
    vm.sh("rm /etc/initramfs-tools/scripts/local-bottom/snapbreaker")
    told = well(vm, "snapbreaker", "rollback", "--last", "--at-boot", "--yes", code=4)
    assert "snapbreaker install-service" in told
    assert datasets(vm) == before
