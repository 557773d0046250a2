"""A root on ZFS is replaced at the next boot: real reboots, and power cuts on both sides of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import comparer
from tests.lab import vm_zfs_root
from tests.lab.vm_zfs import ZfsVm
from tests.vm.conftest import booted
from tests.vm.power_cuts import COMPARER, EXCLUDED

PLACES = ("/", "/opt", "/home")
ROOT = vm_zfs_root.DATASET
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
    print(told)
    print("\n".join(datasets(vm)))
    assert "takes effect at reboot (exit 5)" in told
    assert "/ becomes what it was at the next boot (zfs)" in told
    assert "/opt becomes what it was at the next boot (zfs)" in told
    assert "/home goes back early in the next boot (zfs)" in told
    assert state(vm) == "reboot-pending"
    assert "useradd" not in well(vm, "id", "deploy")  # nothing has changed under what runs
    later = "echo later >>/var/log/service.log; echo later >/var/tmp/kept/file; echo lost >/etc/lost"
    vm.sh(f"{later}; sync")
    vm.power_cut()
    booted_as = vm.boot()
    print(vm.run("journalctl", "-b", "-u", "snapbreaker-recover", "--no-pager").stdout)
    print("\n".join(datasets(vm)))
    assert booted_as == "running"
    assert differences(vm) == ""
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
    assert [line for line in datasets(vm) if "/others" not in line] == before
    assert differences(vm) == ""
    well(vm, "snapbreaker", "run", "--", "true")
