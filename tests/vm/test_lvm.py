"""LVM as Debian 12 has it: volumes go back exactly from thin and from classic snapshots, before these overflow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import soak
from tests.lab.vm_judge import HOSTILE, JUDGE
from tests.lab.vm_lvm import LvmVm
from tests.lab.vm_zfs import disks
from tests.vm.conftest import booted
from tests.vm.lvm_volumes import GROUPS, Volume, gone, made

TYPES = {
    "lvcreate -qq -y --type raid1 -m 1 -L 64m -n v types": "",
    "lvcreate -qq -y --type raid1 -m 1 --raidintegrity y -L 64m -n v types": "RAID with integrity",
    "lvcreate -qq -y -L 64m -n v types; lvcreate -qq -y --type cache -L 32m -n c types/v": "",
    "lvcreate -qq -y -L 64m -n v types; lvcreate -qq -y -L 32m -n c types;"
    " lvconvert -qq -y --type cache --cachevol c types/v": "is a cachevol",
}
DD = "dd if=/dev/urandom bs=1M count=10 conv=fsync status=none"


@pytest.fixture(scope="module")
def lvm_vm(lab: Path) -> Iterator[LvmVm]:
    if reason := LvmVm.missing():
        pytest.skip(reason)
    vm = LvmVm.create(lab, None, disks(lab, 1 << 30, 1 << 30, 300 << 20, 300 << 20))
    try:
        booted(vm)
        vm.put_judge()
        vm.sh(GROUPS)
        yield vm
    finally:
        vm.close()


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


def hostile_deploy(volume: Volume, backend: str = "lvm") -> None:
    volume.vm.sh(f"{HOSTILE} seed {volume.path}/root")
    volume.save()
    deploy = ("python3", "-m", "tests.lab.hostile", "deploy", f"{volume.path}/root", f"/root/pids.{volume.number}")
    done = volume.vm.snapbreaker("run", "--scope", volume.path, "--", *deploy, cwd=JUDGE, timeout=180)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"({backend})" in done.stderr
    assert volume.differences() == ""
    assert volume.snapshots() == []


def test_a_hostile_deploy_is_put_back(volume: Volume) -> None:
    hostile_deploy(volume)


def test_a_hostile_deploy_on_xfs_is_put_back(lvm_vm: LvmVm) -> None:
    volume = made(lvm_vm, "thin", "xfs")
    hostile_deploy(volume)
    gone(volume)


def test_btrfs_on_a_logical_volume_has_snapshots_of_its_own(lvm_vm: LvmVm) -> None:
    volume = made(lvm_vm, "thin", "btrfs")
    hostile_deploy(volume, "btrfs")
    gone(volume)


@pytest.mark.parametrize("volume", soak.cases(["thin"], ["classic"]), indirect=True)
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


@pytest.mark.parametrize("volume", soak.cases(["classic"], ["thin"]), indirect=True)
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


@pytest.mark.parametrize("volume", soak.cases(["classic"], ["thin"]), indirect=True)
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


@soak.only_long
def test_types_of_volumes(lvm_vm: LvmVm) -> None:
    """A snapshot of RAID and of a cached volume, or a reason."""
    vm = lvm_vm
    vm.sh("vgcreate -qq types /dev/ubdd /dev/ubde; mkdir /types")
    for make, refused in TYPES.items():
        vm.sh(f"{make}; mke2fs -q -t ext4 /dev/types/v; mount /dev/types/v /types; echo before >/types/file")
        if refused:
            assert refused in vm.snapbreaker("doctor", "--scope", "/types").stdout
            done = vm.snapbreaker("run", "--backend", "lvm", "--scope", "/types", "--", "true")
            assert (done.returncode, refused in done.stderr) == (4, True), done.stderr
        else:
            script = "echo after >/types/file; echo Error: it failed"
            done = vm.snapbreaker("run", "--scope", "/types", "--", "sh", "-c", script)
            assert (done.returncode, "(lvm)" in done.stderr) == (1, True), done.stderr
            assert vm.sh("cat /types/file") == "before\n"
        vm.sh("umount /types; lvremove -qq -y types")
    vm.sh("vgremove -qq types; rmdir /types")


@pytest.mark.parametrize("volume", soak.cases(["thin"], ["classic"]), indirect=True)
def test_a_list_of_what_may_be_active(volume: Volume) -> None:
    """Where lvm.conf has one, it has to let snapshots in."""
    vm, conf = volume.vm, "/etc/lvm/lvmlocal.conf"
    listed = f'"{volume.group}/pool", "{volume.group}/{volume.name}"'
    vm.sh(f"echo 'activation {{ volume_list = [ {listed} ] }}' >{conf}")
    refused = volume.run("true")
    assert refused.returncode == 4, refused.stderr
    assert "volume_list" in refused.stderr
    assert volume.snapshots() == []
    vm.sh(f"""sed -i 's/ ] / , "@snapbreaker" ] /' {conf}""")
    volume.tripped("echo after >file")
    vm.sh(f"rm {conf}")
    assert volume.differences() == ""


@pytest.mark.parametrize("volume", soak.cases(["classic"], ["thin"]), indirect=True)
def test_killed_while_it_is_made(volume: Volume) -> None:
    """Nothing of it is left, and the next run has its checkpoint."""
    vm = volume.vm
    for delay in (0.15, 0.3, 0.45, 0.6, 0.8):
        vm.run("timeout", "-s", "KILL", str(delay), "snapbreaker", "run", "--scope", volume.path, "--", "true")
        vm.snapbreaker("recover", timeout=60)
    time.sleep(0)
    volume.tripped("echo after >file")
    assert volume.differences() == ""
