"""A dataset that nobody uses goes back in one step, and what it held is kept; else it goes back path by path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import soak
from tests.lab.vm_judge import COMPARE, HOSTILE, JUDGE
from tests.lab.vm_zfs import ZfsVm, disks
from tests.vm.conftest import booted

NAME, PATH = "tank/d", "/d"
MAKE = f"""zpool create -f -O mountpoint=none tank /dev/ubdb
zfs create -o acltype=posixacl -o quota=700M -o mountpoint={PATH} {NAME}; zfs create {NAME}/child
{HOSTILE} seed {PATH}/root; head -c 1M /dev/urandom >{PATH}/mapped; echo before >{PATH}/child/file
head -c 1M /dev/urandom >{PATH}/kept; head -c 24M /dev/urandom >{PATH}/big; snapbreaker install-service"""
SAVE = f"sync; {COMPARE} save {PATH} /root/before; sync"
# Enough to be worth it, all that is hostile, and pages that only a mapping has written.
CHANGE = f"""python3 -m tests.lab.hostile mutate {PATH}/root; head -c 24M /dev/urandom >{PATH}/big; rm {PATH}/kept
python3 -c '
import mmap
with open("{PATH}/mapped", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
    mapped[:5] = b"after"'
"""
FAIL = "echo Error: it failed"
WHOLE, NOT_WHOLE = "it went back as a whole", "it goes back path by path"
# Ahead of the real one on the path that snapbreaker searches: at one subcommand it does something else, too.
STRIKE = """#!/bin/sh
what= when= how=
[ ! -e /run/strike ] || read -r what when how </run/strike
cat /proc/$PPID/cmdline >/run/ours.$$
strike() {
    rm /run/strike
    case $how in
    cut) echo 1 >/proc/sys/kernel/sysrq; echo o >/proc/sysrq-trigger; sleep 60 ;;
    write) echo meanwhile >/d/meanwhile; return ;;
    snapshot) /usr/sbin/zfs snapshot tank/d@theirs; return ;;
    esac
    for one in /proc/[0-9]*; do
        ! cmp -s "$one/cmdline" /run/ours.$$ || kill -9 "${one#/proc/}"
    done
    exit 1
}
[ "$1 $when" != "$what before" ] || strike
/usr/sbin/zfs "$@"
status=$?
[ "$1 $when" != "$what after" ] || strike
exit $status
"""
RECOVER = """i=0
until snapbreaker recover; status=$?; [ $status != 4 ]; do
    sleep 1; i=$((i+1)); [ $i -lt 60 ] || break
done; exit $status"""


@pytest.fixture(scope="module")
def machine(lab: Path) -> Iterator[ZfsVm]:
    if reason := ZfsVm.missing():
        pytest.skip(reason)
    vm = ZfsVm.create(lab, None, disks(lab, 1 << 30))
    try:
        booted(vm)
        vm.put_judge()
        vm.put(STRIKE.encode(), "/usr/local/sbin/zfs", 0o755)
        vm.sh(MAKE)
        yield vm
    finally:
        vm.close()


@pytest.fixture
def vm(machine: ZfsVm) -> Iterator[ZfsVm]:
    """With the dataset as it is to be, and without checkpoints before and after."""
    machine.sh(SAVE)
    yield machine
    machine.sh(
        "for one in $(ls /var/lib/snapbreaker | grep ^0); do snapbreaker checkpoint delete --force $one; done"
    )
    assert machine.sh("zfs list -Ho name -t all -r tank").split() == ["tank", NAME, f"{NAME}/child"]


def tripped(vm: ZfsVm, change: str = CHANGE) -> str:
    """What the run said that was put back."""
    command = ("sh", "-ec", f"{change}{FAIL}")
    done = vm.snapbreaker("run", "--scope", PATH, "--", *command, cwd=JUDGE, timeout=180)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1, said
    assert_as_before(vm)
    return said


def assert_as_before(vm: ZfsVm) -> None:
    """Twice: what the kernel has in memory must be what is on the disk."""
    for _ in range(2):
        _assert_same(vm)
        vm.sh("echo 3 >/proc/sys/vm/drop_caches")
    vm.sh(f"touch {PATH}/child/new; rm {PATH}/child/new; : >>{PATH}/kept; {SAVE}")


def _assert_same(vm: ZfsVm) -> None:
    compared = vm.run("sh", "-c", f"{COMPARE} diff {PATH} /root/before", timeout=120)
    assert compared.returncode == 0, compared.stdout + compared.stderr


def facts(vm: ZfsVm) -> str:
    """What is set on the datasets, what is mounted, and how."""
    columns = "zfs get -Hpr -t filesystem -o name,property,value,source all tank/d"
    volatile = "used|available|referenced|written|usedby|logical|compressratio|refcompressratio|snapshots_changed"
    return vm.sh(f"{columns} | grep -Ev '\\s({volatile})'; grep -F ' {PATH}' /proc/self/mountinfo")


def test_it_goes_back_as_a_whole_and_what_was_there_is_kept(vm: ZfsVm) -> None:
    vm.sh(f"zfs set org.example:note='two words' {NAME}")
    before = facts(vm)
    assert WHOLE in tripped(vm)
    assert facts(vm) == before
    (kept,) = (name for name in vm.sh("zfs list -Ho name -r tank").split() if name.endswith(".displaced"))
    vm.sh(
        f"mount -t zfs -o zfsutil,ro {kept} /mnt; test $(stat -c %s /mnt/big) = 25165824; "
        "test ! -e /mnt/kept; test $(head -c 5 /mnt/mapped) = after; umount /mnt"
    )
    vm.sh(f"zfs inherit org.example:note {NAME}")


def test_little_goes_back_path_by_path(vm: ZfsVm) -> None:
    said = tripped(vm, f"echo after >{PATH}/new; rm {PATH}/kept; ")
    assert WHOLE not in said
    assert NOT_WHOLE not in said


@soak.only_long
def test_its_vault_survives_and_a_second_checkpoint_goes_back_whole_too(vm: ZfsVm) -> None:
    done = vm.snapbreaker(
        "run", "--scope", PATH, "--", "sh", "-c", f"echo committed >{PATH}/first; rm {PATH}/mapped"
    )
    assert done.returncode == 0, done.stderr
    vm.sh(SAVE)
    assert WHOLE in tripped(vm, f"head -c 24M /dev/urandom >{PATH}/big; rm {PATH}/first; ")
    first = vm.sh("ls /var/lib/snapbreaker | grep ^0 | head -n 1").strip()
    undone = vm.snapbreaker("rollback", first, "--yes")
    assert undone.returncode == 0, undone.stdout + undone.stderr
    vm.sh(f"test ! -e {PATH}/first; test -s {PATH}/mapped")


USES = soak.cases(["exec 3</d/mapped"], ["mount --bind /d/root /mnt", "cd /d/root", "exec 3>>/d/kept"])


@pytest.mark.parametrize("use", USES)
def test_what_is_in_use_goes_back_path_by_path(vm: ZfsVm, use: str) -> None:
    vm.sh("rm -f /run/busy")
    busy = vm.start("sh", "-c", f"{use}; touch /run/busy; exec sleep 1000")
    vm.sh("until [ -e /run/busy ]; do sleep 0.05; done")
    try:
        said = tripped(vm)
        assert WHOLE not in said
        assert NOT_WHOLE in said
        assert "uses it" in said
    finally:
        vm.kill(busy)
        vm.wait(busy)
        vm.run("umount", "/mnt")


def test_newer_snapshots_and_clones_are_named_and_stay(vm: ZfsVm) -> None:
    said = tripped(vm, f"{CHANGE}zfs snapshot {NAME}@theirs; zfs clone {NAME}@theirs tank/clone\n")
    assert f"{NAME}@theirs would be lost" in said
    vm.sh(f"zfs destroy tank/clone; zfs destroy {NAME}@theirs")
    said = tripped(vm, f"{CHANGE}zfs snapshot {NAME}@t; zfs bookmark {NAME}@t {NAME}#t; zfs destroy {NAME}@t\n")
    assert f"{NAME}#t would be lost" in said
    vm.sh(f"zfs destroy {NAME}#t")


@pytest.mark.parametrize(
    ("step", "why"), soak.cases([("receive before write", "others write")], [("destroy after snapshot", "")])
)
def test_what_others_do_meanwhile_is_not_lost(vm: ZfsVm, step: str, why: str) -> None:
    vm.sh(f"echo {step} >/run/strike")
    said = tripped(vm)
    assert NOT_WHOLE in said
    assert why in said
    vm.sh(f"test ! -e /run/strike; zfs destroy {NAME}@theirs || true")


STEPS = soak.cases(
    ["rollback after"],
    ["snapshot after", "receive before", "receive after", "get before", "rollback before"],
)


@pytest.mark.parametrize("step", STEPS)
def test_all_who_work_are_killed(vm: ZfsVm, step: str) -> None:
    _strike(vm, f"{step} kill")
    running = vm.start("snapbreaker", "run", "--scope", PATH, "--", "sh", "-c", CHANGE + FAIL, cwd=JUDGE)
    vm.wait(running, 180)
    recovered = vm.run("sh", "-c", RECOVER, timeout=180)
    assert recovered.returncode in (0, 1), recovered.stdout + recovered.stderr
    vm.sh("test ! -e /run/strike")
    assert_as_before(vm)


@pytest.mark.parametrize("step", soak.cases(["get before"], ["rollback before", "rollback after"]))
def test_the_power_is_cut(vm: ZfsVm, step: str) -> None:
    _strike(vm, f"{step} cut")
    vm.start("snapbreaker", "run", "--scope", PATH, "--", "sh", "-c", CHANGE + FAIL, cwd=JUDGE)
    assert vm.kernel
    vm.kernel.wait(180)
    vm.power_cut()
    assert vm.boot() == "running", vm.run("systemctl", "list-units", "--failed").stdout
    listed = vm.snapbreaker("checkpoint", "list")
    assert "rolled-back" in listed.stdout, listed.stdout
    assert_as_before(vm)


def _strike(vm: ZfsVm, how: str) -> None:
    """The first snapshot is the checkpoint's own, which pyzfs takes."""
    vm.sh(f"rm -f /run/ours.*; echo {how} >/run/strike")
