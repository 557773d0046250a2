"""A root on ZFS is replaced at the next boot: real reboots, and power cuts on both sides of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import comparer
from tests.lab import soak, vm_zfs_root
from tests.lab.vm_zfs import ZfsVm
from tests.vm.conftest import booted
from tests.vm.power_cuts import COMPARER, EXCLUDED

PLACES = ("/", "/opt", "/home")
ROOT = vm_zfs_root.DATASET
# Found before zfs and zpool: cuts the power ahead of a command that changes something, counted from the boot.
CUTTER = r"""#!/bin/sh
case $1 in rename | set | clone | create | promote | inherit | destroy)
	at=$(cat /run/cut-at 2>/dev/null || sed -n 's/.*cut_at=\([0-9]*\).*/\1/p' /proc/cmdline)
	count=$(($(cat /run/cut-count 2>/dev/null || echo 0) + 1))
	echo $count >/run/cut-count
	[ "$count" != "$at" ] || { echo o >/proc/sysrq-trigger; sleep 60; }
	;;
esac
exec /usr/sbin/${0##*/} "$@"
"""
PREPARE = f"""
zfs create {ROOT}/data; zfs snapshot {ROOT}@older
mkdir -p /var/tmp/kept; echo old >/home/file; echo old >/opt/file; snapbreaker install-service >/dev/null
echo old >/var/log/service.log; echo old >/data/file
"""
CHANGE = """
rm /etc/hosts /usr/bin/lsattr; echo bad >>/etc/issue; useradd deploy; chmod 700 /srv; echo new >/home/file
echo new >/opt/file; echo x >/opt/more; echo new >/data/file
"""


@pytest.fixture
def machine(lab: Path) -> Iterator[ZfsVm]:
    if reason := ZfsVm.missing():
        pytest.skip(reason)
    vm = vm_zfs_root.create(lab)
    try:
        booted(vm).put(Path(comparer.__file__), COMPARER)
        for name in ("zfs", "zpool"):
            vm.put(CUTTER.encode(), f"/usr/local/sbin/{name}", 0o755)
        vm.sh(PREPARE)
        for number, place in enumerate(PLACES):
            vm.sh(f"python3 {COMPARER} save {place} /var/tmp/before{number} {' '.join(EXCLUDED)}")
        vm.sh("sync")
        yield vm
    finally:
        vm.close()


def well(vm: ZfsVm, *argv: str, code: int = 0) -> str:
    done = vm.run(*argv, timeout=200)
    assert done.returncode == code, f"{argv}: {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def differences(vm: ZfsVm) -> str:
    found = ""
    for number, place in enumerate(PLACES):
        done = vm.run("python3", COMPARER, "diff", place, f"/var/tmp/before{number}", *EXCLUDED, timeout=200)
        found += done.stdout.removeprefix("no difference\n") + done.stderr
    return found


def state(vm: ZfsVm) -> str:
    return str(json.loads(well(vm, "snapbreaker", "checkpoint", "list", "--json").splitlines()[-1])["state"])


def datasets(vm: ZfsVm) -> list[str]:
    return vm.sh("zfs list -Ho name,mounted,canmount,mountpoint -r rpool").splitlines()


def change(vm: ZfsVm) -> None:
    """By a run that is committed."""
    well(vm, "snapbreaker", "run", "--", "sh", "-ec", CHANGE)
    assert state(vm) == "committed"


def test_the_next_boot_is_on_the_checkpoint(machine: ZfsVm) -> None:
    vm = machine
    before = datasets(vm)
    change(vm)
    vm.sh(f"zfs snapshot {ROOT}@newer; zfs create {ROOT}/others; echo x >/others/file")
    told = well(vm, "snapbreaker", "rollback", "--last", "--at-boot", "--yes", code=5)
    assert "takes effect at reboot (exit 5)" in told
    assert "/ becomes what it was at the next boot (zfs)" in told
    assert "/opt becomes what it was at the next boot (zfs)" in told
    assert "/home goes back early in the next boot (zfs)" in told
    assert state(vm) == "reboot-pending"
    assert "useradd" not in well(vm, "id", "deploy")  # nothing has changed under what runs
    later = "echo later >>/var/log/service.log; echo later >/var/tmp/kept/file; echo lost >/etc/lost"
    vm.sh(f"{later}; sync")
    vm.power_cut()
    assert vm.boot() == "running"
    assert differences(vm) == "b'others': extra mountpoint\n"
    assert state(vm) == "rolled-back"
    assert well(vm, "findmnt", "-no", "SOURCE", "/") == f"{ROOT}\n"
    assert well(vm, "cat", "/var/tmp/kept/file", "/var/log/service.log", "/data/file", "/others/file").split() == [
        *("later", "old", "later", "new", "x")
    ]
    report = json.loads(well(vm, "snapbreaker", "report", "--last", "--format", "json"))
    assert report["outcome"] == "rolled-back"
    well(vm, "snapbreaker", "verify", "--last")
    snapshots = vm.sh("zfs list -Ht snapshot -o name").split()
    assert f"{ROOT}@older" in snapshots
    newer = next(name for name in snapshots if name.endswith(".old@newer"))
    refused = well(vm, "snapbreaker", "checkpoint", "delete", report["id"], code=4)
    assert newer.partition("@")[0] in refused
    vm.sh(f"zfs destroy {newer}")
    well(vm, "snapbreaker", "checkpoint", "delete", report["id"])
    vm.sh(f"zfs destroy {ROOT}/others; rm -df /others")
    assert datasets(vm) == before
    left = differences(vm).splitlines()
    assert [line for line in left if not line.startswith("b'': mtime_ns")] == []  # of the directory that has gone
    well(vm, "snapbreaker", "run", "--", "true")


def test_it_is_called_off(machine: ZfsVm) -> None:
    vm = machine
    change(vm)
    before = datasets(vm)
    well(vm, "snapbreaker", "rollback", "--last", "--at-boot", "--yes", code=5)
    well(vm, "snapbreaker", "rollback", "--last", "--call-off")
    assert state(vm) == "committed"
    assert datasets(vm) == before
    well(vm, "snapbreaker", "rollback", "--last", "--call-off", code=4)
    vm.power_off()
    assert vm.boot() == "running"
    well(vm, "id", "deploy")
    assert datasets(vm) == before
    vm.sh("rm /etc/initramfs-tools/scripts/local-bottom/snapbreaker")
    told = well(vm, "snapbreaker", "rollback", "--last", "--at-boot", "--yes", code=4)
    assert "snapbreaker install-service" in told
    assert datasets(vm) == before


# Power cuts ahead of a command that changes something, in the run that schedules it and in the boots after it.
STEPS = [(6, 3)]
LONG = [(step, 0) for step in range(1, 7)] + [(0, step) for step in range(1, 8)]


@pytest.mark.parametrize("steps", LONG if soak.IS_LONG else STEPS, ids=str)
def test_a_power_cut_at_each_step(machine: ZfsVm, steps: tuple[int, int]) -> None:
    """A root is found at each boot, and in the end it is the checkpoint. The sixth is the second rename."""
    vm, (scheduling, booting) = machine, steps
    change(vm)
    if scheduling:
        vm.sh(f"echo {scheduling} >/run/cut-at")
        vm.start("snapbreaker", "rollback", "--last", "--at-boot", "--yes")
        assert vm.kernel
        vm.kernel.wait(120)
        vm.power_cut()
    else:
        well(vm, "snapbreaker", "rollback", "--last", "--at-boot", "--yes", code=5)
        vm.power_cut()
    if booting:
        vm.arguments = (f"cut_at={booting}",)
    assert vm.boot() == "running"  # which tries again where the power went; less is left to be done then
    assert state(vm) == "rolled-back"
    assert differences(vm) == ""
    well(vm, "sh", "-c", "snapbreaker checkpoint delete $(ls /var/lib/snapbreaker | grep ^0)")
    assert [line for line in datasets(vm) if "snapbreaker" in line] == []
