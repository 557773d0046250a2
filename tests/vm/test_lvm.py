"""LVM as Debian 12 has it: volumes go back exactly from thin and from classic snapshots, before these overflow."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.lab.vm_judge import COMPARE, HOSTILE, JUDGE
from tests.lab.vm_lvm import LvmVm
from tests.lab.vm_zfs import disks
from tests.vm.conftest import booted

GROUPS = """
udevadm settle --timeout=30 || :
vgcreate -q fat /dev/ubdb; vgcreate -q thin /dev/ubdc
lvcreate -q --type thin-pool -L 700m --poolmetadatasize 8m -n pool thin
"""
MAKE = {
    "classic": "lvcreate -qq -y -W y -L 160m -n {name} fat",
    "thin": "lvcreate -qq -y -V 400m --thinpool pool -n {name} thin",
}
MKFS = {"ext4": "mke2fs -q -t ext4 -b 4096", "xfs": "mkfs.xfs -q -m bigtime=1"}
GROUP = {"classic": "fat", "thin": "thin"}
DD = "dd if=/dev/urandom bs=1M count=10 conv=fsync status=none"
_numbers = itertools.count(1)


@dataclass(slots=True)
class Volume:
    """A filesystem on a logical volume, at ``/vN``, on a machine that other tests use too."""

    vm: LvmVm
    number: int
    kind: str

    @property
    def path(self) -> str:
        return f"/v{self.number}"

    @property
    def group(self) -> str:
        return GROUP[self.kind]

    @property
    def name(self) -> str:
        return f"data-{self.number}"

    def save(self) -> None:
        self.vm.sh(f"sync; {COMPARE} save {self.path} /root/before{self.number}")

    def differences(self) -> str:
        done = self.vm.run("sh", "-c", f"{COMPARE} diff {self.path} /root/before{self.number}")
        return "" if done.returncode == 0 else done.stdout + done.stderr

    def run(self, script: str, *options: str) -> CompletedProcess[str]:
        command = ("sh", "-ec", f"cd {self.path}; {script}")
        return self.vm.snapbreaker("run", "--scope", self.path, *options, "--", *command, timeout=120)

    def tripped(self, script: str, status: int = 1, *options: str) -> CompletedProcess[str]:
        done = self.run(f"{script}; echo Error: it failed", *options)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def snapshots(self) -> list[str]:
        listed = f"lvs --noheadings -o lv_name -S 'origin={self.name} && vg_name={self.group}'"
        return self.vm.sh(listed).split()


@pytest.fixture(scope="module")
def lvm_vm(lab: Path) -> Iterator[LvmVm]:
    if reason := LvmVm.missing():
        pytest.skip(reason)
    vm = LvmVm.create(lab, None, disks(lab, 1 << 30, 1 << 30))
    try:
        booted(vm)
        vm.put_judge()
        vm.sh(GROUPS)
        yield vm
    finally:
        vm.close()


def made(vm: LvmVm, kind: str, fstype: str = "ext4") -> Volume:
    volume = Volume(vm, next(_numbers), kind)
    device = f"/dev/{volume.group}/{volume.name}"
    vm.sh(
        f"{MAKE[kind].format(name=volume.name)}; {MKFS[fstype]} {device}; mkdir {volume.path};"
        f"mount {device} {volume.path}; echo before >{volume.path}/file; mkdir {volume.path}/app"
    )
    volume.save()
    return volume


def gone(volume: Volume) -> None:
    vm = volume.vm
    vm.sh(
        'for id in $(snapbreaker checkpoint list --json | sed -n \'s/.*"id": *"\\([^"]*\\)".*/\\1/p\'); do'
        " snapbreaker checkpoint delete --force $id; done"
    )
    assert volume.snapshots() == []
    vm.sh(f"umount {volume.path}; lvremove -qq -y {volume.group}/{volume.name}")


@pytest.fixture(params=["classic", "thin"])
def volume(request: pytest.FixtureRequest, lvm_vm: LvmVm) -> Iterator[Volume]:
    found = made(lvm_vm, request.param)
    yield found
    gone(found)


@pytest.fixture
def classic(lvm_vm: LvmVm) -> Iterator[Volume]:
    found = made(lvm_vm, "classic")
    yield found
    gone(found)


@pytest.fixture
def thin(lvm_vm: LvmVm) -> Iterator[Volume]:
    found = made(lvm_vm, "thin")
    yield found
    gone(found)


def hostile_deploy(volume: Volume) -> None:
    volume.vm.sh(f"{HOSTILE} seed {volume.path}/root")
    volume.save()
    deploy = ("python3", "-m", "tests.lab.hostile", "deploy", f"{volume.path}/root", f"/root/pids.{volume.number}")
    done = volume.vm.snapbreaker("run", "--scope", volume.path, "--", *deploy, cwd=JUDGE, timeout=180)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "(lvm)" in done.stderr
    assert volume.differences() == ""
    assert volume.snapshots() == []


def test_a_hostile_deploy_is_put_back(volume: Volume) -> None:
    hostile_deploy(volume)


def test_a_hostile_deploy_on_xfs_is_put_back(lvm_vm: LvmVm) -> None:
    volume = made(lvm_vm, "thin", "xfs")
    hostile_deploy(volume)
    gone(volume)


def test_a_hostile_change_is_undone_after_its_commit(volume: Volume) -> None:
    volume.vm.sh(f"{HOSTILE} seed {volume.path}/root")
    volume.save()
    mutate = ("python3", "-m", "tests.lab.hostile", "mutate", f"{volume.path}/root")
    done = volume.vm.snapbreaker("run", "--scope", volume.path, "--", *mutate, cwd=JUDGE, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert volume.differences()
    assert volume.snapshots() == [], "the undo set is enough"
    done = volume.vm.snapbreaker("rollback", "--last", "--yes", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert volume.differences() == ""


def test_a_directory_of_the_volume(volume: Volume) -> None:
    """And what lies beside the scope stays."""
    vm = volume.vm
    command = ("sh", "-c", f"echo x >{volume.path}/app/x; echo y >{volume.path}/beside; echo Error: it failed")
    done = vm.snapbreaker("run", "--scope", f"{volume.path}/app", "--", *command)
    assert done.returncode == 1, done.stderr
    assert vm.sh(f"ls {volume.path}/app; cat {volume.path}/beside").split() == ["y"]
    vm.sh(f"rm {volume.path}/beside")


def test_tags_and_size(classic: Volume) -> None:
    done = classic.run(
        "lvs --noheadings -o lv_size,lv_tags --units m -S origin=" + classic.name, "--snapshot-size", "80M"
    )
    assert done.returncode == 0, done.stderr
    size, tags = done.stdout.split()
    assert size == "80.00m"
    assert "snapbreaker" in tags.split(",")
    refused = classic.run("true", "--snapshot-size", "90G")
    assert refused.returncode == 0, "more than the origin is cut down to that"
    refused = classic.vm.snapbreaker("run", "--snapshot-size", "many", "--scope", classic.path, "--", "true")
    assert refused.returncode == 2
    assert "--snapshot-size many is no size" in refused.stderr


def test_it_trips_before_a_snapshot_overflows(classic: Volume) -> None:
    flood = f"i=0; while :; do i=$((i+1)); {DD} of=big$((i % 9)); done"
    done = classic.run(flood, "--snapshot-size", "64M")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "% full: what is left is needed for the rollback" in done.stderr
    assert classic.differences() == ""


def test_what_was_deleted_comes_back_though_the_snapshot_is_smaller(classic: Volume) -> None:
    """To delete writes nothing, to bring it back does. The snapshot gets more room; without, nothing is lost."""
    vm = classic.vm
    vm.sh(f"dd if=/dev/urandom of={classic.path}/app/big bs=1M count=100 status=none")
    classic.save()
    classic.tripped("rm app/big; sync", 1, "--snapshot-size", "64M")
    assert classic.differences() == ""
    hog = "lvcreate -qq -y -W n -l 100%FREE -n hog fat"
    done = classic.tripped(f"rm app/big; sync; {hog} 2>/dev/null", 3, "--snapshot-size", "64M")
    assert "and overflows: a rollback writes 105 MB" in done.stderr
    assert "lvextend -L +" in done.stderr
    assert classic.differences(), "nothing was put back yet"
    vm.sh("lvremove -qq -y fat/hog")
    done = vm.snapbreaker("rollback", "--last", "--yes", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert classic.differences() == ""


def test_what_was_deleted_comes_back_though_the_pool_is_smaller(thin: Volume) -> None:
    vm = thin.vm
    vm.sh(f"dd if=/dev/urandom of={thin.path}/app/big bs=1M count=300 status=none")
    thin.save()
    fill = "dd if=/dev/urandom of=/dev/thin/other bs=1M count=250 conv=fsync status=none"
    vm.sh(f"lvcreate -qq -y -V 700m --thinpool pool -n other thin; {fill}")
    thin.tripped("rm app/big; sync")
    assert thin.differences() == ""
    vm.sh("lvremove -qq -y thin/other")


def test_it_trips_before_a_pool_is_full(thin: Volume) -> None:
    """The pool is shared: another volume fills it."""
    vm = thin.vm
    vm.sh("lvcreate -qq -y -V 700m --thinpool pool -n other thin")
    flood = f"for i in $(seq 70); do {DD} of=/dev/thin/other seek=$((i*10)); done"
    done = thin.run(f"echo after >file; {flood}; sleep 60")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "of the thin pool" in done.stderr
    assert thin.differences() == ""
    vm.sh("lvremove -qq -y thin/other")


def test_a_snapshot_that_overflowed_is_no_checkpoint(classic: Volume) -> None:
    """Nobody watched: the process that does was killed together with all others; recover says so loudly."""
    vm = classic.vm
    started = vm.start(
        *("snapbreaker", "run", "--snapshot-size", "64M", "--scope", classic.path, "--"),
        *("sh", "-c", f"echo after >{classic.path}/file; echo $$ >/root/begun; sleep 60"),
    )
    vm.sh("for i in $(seq 300); do [ -s /root/begun ] && break; sleep 0.1; done; [ -s /root/begun ]")
    vm.sh("for p in $(pgrep -f '[b]in/snapbreaker run'); do kill -9 $p || :; done; rm /root/begun")
    vm.kill(started)
    vm.sh(f"dd if=/dev/urandom of={classic.path}/big bs=1M count=100 conv=fsync 2>/dev/null")
    done = vm.snapbreaker("recover", timeout=120)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "has overflowed" in done.stdout + done.stderr


def test_a_removed_snapshot_is_no_checkpoint(volume: Volume) -> None:
    name = f"$(lvs --noheadings -o lv_name -S origin={volume.name} | tr -d ' ')"
    done = volume.tripped(f"echo after >file; lvremove -qq -y {volume.group}/{name}", 3)
    assert "was removed" in done.stderr or "is gone" in done.stderr
    assert "ROLLBACK FAILED" in done.stderr


def test_reasons(lvm_vm: LvmVm, classic: Volume) -> None:
    vm = classic.vm
    vm.sh("lvcreate -qq -y -W n -l 100%FREE -n hog fat")
    said = vm.snapbreaker("doctor", "--scope", classic.path).stdout
    assert "too little for a snapshot of fat/data" in said
    assert "vgextend fat DEVICE" in said
    done = classic.run("true", "--backend", "lvm")
    assert done.returncode == 4, done.stderr
    vm.sh("lvremove -qq -y fat/hog")
    vm.sh(f"lvcreate -qq -y -s -L 16m -n theirs fat/{classic.name}")
    assert "has other snapshots: theirs" in vm.snapbreaker("doctor", "--scope", classic.path).stdout
    classic.tripped("echo after >file")
    assert classic.differences() == ""
    assert classic.snapshots() == ["theirs"]
    vm.sh("lvremove -qq -y fat/theirs")


def test_killed_while_it_is_made(volume: Volume) -> None:
    """Nothing of it is left, and the next run has its checkpoint."""
    vm = volume.vm
    for delay in (0.15, 0.3, 0.45, 0.6, 0.8):
        vm.run("timeout", "-s", "KILL", str(delay), "snapbreaker", "run", "--scope", volume.path, "--", "true")
        vm.snapbreaker("recover", timeout=60)
    time.sleep(0)
    volume.tripped("echo after >file")
    assert volume.differences() == ""


def test_a_power_cut(lab: Path) -> None:
    """While the command runs: the thin and the classic snapshot are there again, and what was begun is undone."""
    if reason := LvmVm.missing():
        pytest.skip(reason)
    vm = LvmVm.create(lab, None, disks(lab, 1 << 30, 1 << 30))
    try:
        booted(vm)
        vm.put_judge()
        vm.sh(GROUPS)
        vm.sh("snapbreaker install-service")
        volumes = [made(vm, kind) for kind in MAKE]
        for volume in volumes:
            fstab = f"/dev/{volume.group}/{volume.name} {volume.path} ext4 defaults 0 0"
            vm.sh(f"echo {fstab} >>/etc/fstab")
        scopes = [word for volume in volumes for word in ("--scope", volume.path)]
        script = "; ".join(f"echo after >{volume.path}/file; rm -r {volume.path}/app" for volume in volumes)
        vm.start(
            "snapbreaker", "run", *scopes, "--", "sh", "-c", f"{script}; sync; touch /root/begun; sync; sleep 60"
        )
        vm.sh("for i in $(seq 300); do [ -e /root/begun ] && break; sleep 0.1; done; [ -e /root/begun ]")
        vm.power_cut()
        assert vm.boot() == "running"
        vm.sh("for i in $(seq 300); do systemctl is-active -q snapbreaker-recover || break; sleep 0.1; done", 60)
        for volume in volumes:
            assert volume.differences() == ""
            assert volume.snapshots() == []
    finally:
        vm.close()
