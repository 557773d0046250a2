"""Data volumes on LVM under a root that is none: put back after a power cut, and replaced at the next boot."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.lab import soak
from tests.lab.vm_lvm import LvmVm
from tests.lab.vm_zfs import disks
from tests.vm.conftest import booted
from tests.vm.lvm_volumes import GROUPS, Volume, made
from tests.vm.whole import state, well

UUID = "UUID=$(blkid -o value -s UUID {device})"
# Kind, filesystem, and how fstab(5) names it. A snapshot has the UUID of its origin.
KINDS = (
    ("thin", "ext4", "{device}"),
    ("classic", "ext4", UUID),
    ("thin", "xfs", UUID),
    ("classic", "xfs", UUID),
)
BEGUN = "until [ -e /root/begun ]; do sleep 0.1; done"
BUSY = "dd if=/dev/zero of=swap bs=1M count=8 status=none; chmod 600 swap; mkswap -q swap; swapon swap"


@pytest.fixture(scope="module")
def volumes(lab: Path) -> Iterator[list[Volume]]:
    if reason := LvmVm.missing():
        pytest.skip(reason)
    vm = LvmVm.create(lab, None, disks(lab, 2 << 30, 1 << 30))
    try:
        booted(vm)
        vm.put_judge()
        vm.sh(GROUPS)
        vm.sh("snapbreaker install-service")
        found = [made(vm, kind, fstype) for kind, fstype, _ in KINDS]
        for volume, (_, fstype, name) in zip(found, KINDS, strict=True):
            source = name.format(device=volume.device)
            vm.sh(f"echo {source} {volume.path} {fstype} defaults 0 0 >>/etc/fstab")
        yield found
    finally:
        vm.close()


def scopes(volumes: Sequence[Volume]) -> list[str]:
    return [word for volume in volumes for word in ("--scope", volume.path)]


def change(volumes: Sequence[Volume]) -> str:
    return "; ".join(f"echo after >{volume.path}/file; rm -r {volume.path}/app" for volume in volumes)


def boot(vm: LvmVm) -> str:
    """After a power cut; `recover` has ended."""
    vm.power_cut()
    return vm.boot()


def test_a_power_cut_while_the_command_runs(volumes: list[Volume]) -> None:
    """The snapshots are there again, and what was begun is undone. A classic snapshot is active before anything is
    mounted, and has the UUID that fstab names.
    """
    vm = volumes[0].vm
    by_hand = well(vm, "snapbreaker", "-q", "checkpoint", "create", *scopes(volumes[1:2])).split()[0]
    script = f"{change(volumes)}; sync; touch /root/begun; sync; sleep 60"
    vm.start("snapbreaker", "run", *scopes(volumes), "--", "sh", "-c", script)
    vm.sh(BEGUN)
    assert boot(vm) == "running"
    (left,) = volumes[1].snapshots()
    assert "ID_FS_" not in vm.sh(f"udevadm info /dev/fat/{left}"), "nothing can mistake it for its origin"
    well(vm, "snapbreaker", "checkpoint", "delete", by_hand)
    for volume in volumes:
        assert volume.differences() == ""
        assert volume.snapshots() == []


def test_one_that_is_mounted_in_place_of_the_volume(volumes: list[Volume]) -> None:
    """As a boot would that takes the first that has the UUID. What helps is told, and does."""
    volume = volumes[1]
    vm = volume.vm
    vm.sh("mv /etc/udev/rules.d/12-snapbreaker.rules /run; udevadm control --reload")
    told = well(vm, "snapbreaker", "doctor", "--scope", volume.path)
    assert f"fstab mounts {volume.path} by the identity of its filesystem" in told
    vm.sh("mv /run/12-snapbreaker.rules /etc/udev/rules.d; udevadm control --reload")
    assert "by the identity" not in well(vm, "snapbreaker", "doctor", "--scope", volume.path)
    well(vm, "snapbreaker", "checkpoint", "create", *scopes([volume]))
    vm.sh(change([volume]))
    (snapshot,) = volume.snapshots()
    vm.sh(f"umount {volume.path}; mount /dev/fat/{snapshot} {volume.path}")
    told = well(vm, "snapbreaker", "rollback", "--last", "--yes", code=3)
    assert f"is mounted at {volume.path}, in place of the volume" in " ".join(told.split()), told
    vm.sh(f"umount {volume.path}; mount {volume.path}")
    made = json.loads(well(vm, "snapbreaker", "checkpoint", "list", "--json").splitlines()[-1])["id"]
    well(vm, "snapbreaker", "rollback", "--last", "--yes")
    assert volume.differences() == ""
    well(vm, "snapbreaker", "checkpoint", "delete", made)


def test_all_are_replaced_at_the_next_boot(volumes: list[Volume]) -> None:
    """Whatever others make of the groups until then. Those that are mounted by the identity of their filesystem,
    which the one that was displaced has, too.
    """
    vm = volumes[0].vm
    made = well(vm, "snapbreaker", "-q", "checkpoint", "create", *scopes(volumes)).split()[0]
    vm.sh(change(volumes))
    vm.sh(f"lvcreate -qq -y -s -L 16m -n theirs fat/{volumes[1].name}")
    told = well(vm, "snapbreaker", "rollback", made, "--at-boot", "--yes", code=5)
    for volume in volumes:
        assert f"{volume.path} becomes what it was at the next boot (lvm)" in told
        assert vm.sh(f"cat {volume.path}/file") == "after\n"
    vm.sh("lvextend -qq -L +40m thin/pool; lvcreate -qq -y -W n -L 4m -n later fat")
    vm.sh("".join(f"echo lost >{volume.path}/lost; " for volume in volumes) + "sync")
    assert boot(vm) == "running"
    assert state(vm) == "ready"
    for volume in volumes:
        assert volume.differences() == ""
        mapped = f"{volume.group}-{volume.name.replace('-', '--')}"
        assert vm.sh(f"findmnt -no SOURCE {volume.path}") == f"/dev/mapper/{mapped}\n"
    refused = well(vm, "snapbreaker", "checkpoint", "delete", made, code=4)
    assert "has other snapshots: theirs" in refused
    vm.sh("lvremove -qq -y fat/theirs; lvremove -qq -y fat/later")
    well(vm, "snapbreaker", "checkpoint", "delete", made)
    assert vm.sh("lvs --noheadings -o lv_name -S 'lv_name=~snapbreaker'") == ""


@soak.only_long
def test_others_may_change_the_group_meanwhile(volumes: list[Volume]) -> None:
    """Nothing that they make is lost, wherever lvm.conf has the locks."""
    vm = volumes[0].vm
    vm.sh("echo 'global { locking_dir = \"/run/lock/elsewhere\" }' >/etc/lvm/lvmlocal.conf")
    made = well(vm, "snapbreaker", "-q", "checkpoint", "create", *scopes(volumes[:1])).split()[0]
    others = vm.start(
        "sh", "-c", "i=0; while [ ! -e /run/enough ]; do i=$((i+1)); lvcreate -qq -y -W n -V 4m --thinpool pool"
        " -n o$i thin && echo o$i; done"
    )  # fmt: skip
    for _ in range(2):
        well(vm, "snapbreaker", "rollback", made, "--at-boot", "--yes", code=5)
        well(vm, "snapbreaker", "rollback", made, "--call-off")
    vm.sh("touch /run/enough")
    there = vm.wait(others).stdout.split()
    assert len(there) > 1
    assert set(there) <= set(vm.sh("lvs --noheadings -o lv_name thin").split())
    vm.sh("rm /etc/lvm/lvmlocal.conf; for name in " + " ".join(there) + "; do lvremove -qq -y thin/$name; done")
    well(vm, "snapbreaker", "checkpoint", "delete", made)


def test_a_busy_file_has_it_go_back_at_the_next_boot(volumes: list[Volume]) -> None:
    """Unasked. And one that is not mounted then follows when it is."""
    vm, two = volumes[0].vm, volumes[:2]
    script = f"{change(two)}; cd {two[0].path}; {BUSY}; echo Error: it failed"
    done = vm.snapbreaker("run", *scopes(two), "--", "sh", "-ec", script, timeout=240)
    assert done.returncode == 5, done.stdout + done.stderr
    assert f"not while the machine runs: {two[0].path}/swap" in done.stderr
    assert f"{two[0].path} becomes what it was at the next boot (lvm)" in done.stderr
    assert state(vm) == "reboot-pending"
    vm.sh(f"sed -i 's:{two[1].path} ext4 defaults:{two[1].path} ext4 noauto:' /etc/fstab; sync")
    assert boot(vm) == "degraded"
    said = vm.sh("journalctl -b -o cat -u snapbreaker-recover")
    assert "ROLLBACK FAILED" in said
    assert two[1].path in said, said
    print(said)
    vm.sh(f"mount {two[1].path}")
    well(vm, "snapbreaker", "recover")
    well(vm, "snapbreaker", "rollback", "--last", "--yes")
    assert state(vm) == "rolled-back"
    for volume in two:
        assert volume.differences() == ""
