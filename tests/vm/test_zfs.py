"""ZFS as Debian 12 has it: datasets go back exactly, and what others rely on is never destroyed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.lab import soak
from tests.lab.vm_judge import COMPARE, HOSTILE, JUDGE
from tests.lab.vm_zfs import ZfsVm, disks
from tests.vm.conftest import booted

POOL = "zpool create -f -O mountpoint=none tank /dev/ubdb && zpool create -f -O mountpoint=none other /dev/ubdc"
# snapbreaker is one file that a python3 without environment runs, so this is where pyzfs is found.
LIBRARY = "/usr/lib/python3/dist-packages/libzfs_core"
_numbers = itertools.count(1)


@dataclass(slots=True)
class Datasets:
    """A dataset with a child, at ``/dN`` and ``/dN/child``, on a machine that other tests use too."""

    vm: ZfsVm
    number: int

    @property
    def path(self) -> str:
        return f"/d{self.number}"

    @property
    def name(self) -> str:
        return f"tank/d{self.number}"

    def save(self) -> None:
        self.vm.sh(f"sync; {COMPARE} save {self.path} /root/before{self.number}")

    def differences(self) -> str:
        done = self.vm.run("sh", "-c", f"{COMPARE} diff {self.path} /root/before{self.number}")
        return "" if done.returncode == 0 else done.stdout + done.stderr

    def tripped(self, script: str, status: int = 1, *options: str) -> CompletedProcess[str]:
        """A run of ``script`` in it that fails, and how that ended."""
        command = ("sh", "-ec", f"cd {self.path}; {script}; echo Error: it failed")
        done = self.vm.snapbreaker("run", "--scope", self.path, *options, "--", *command, timeout=120)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def snapshots(self, columns: str = "name") -> list[str]:
        listed = f"zfs list -Hp -t snapshot -r -o {columns} {self.name}"
        return [line for line in self.vm.sh(listed).splitlines() if "@snapbreaker-" in line]


@pytest.fixture(scope="module")
def zfs_vm(lab: Path) -> Iterator[ZfsVm]:
    if reason := ZfsVm.missing():
        pytest.skip(reason)
    vm = ZfsVm.create(lab, None, disks(lab, 1 << 30, 1 << 28, 1 << 29))
    try:
        booted(vm)
        vm.put_judge()
        vm.sh(POOL)
        yield vm
    finally:
        vm.close()


@pytest.fixture
def datasets(zfs_vm: ZfsVm) -> Iterator[Datasets]:
    made = Datasets(zfs_vm, next(_numbers))
    zfs_vm.sh(f"zfs create -o acltype=posixacl -o mountpoint={made.path} {made.name}")
    zfs_vm.sh(f"zfs create {made.name}/child; echo before >{made.path}/file; echo before >{made.path}/child/file")
    made.save()
    yield made
    release = (
        f"zfs list -Ho name -t snapshot -r {made.name} | xargs -rn1 zfs release snapbreaker 2>/dev/null || true"
    )
    zfs_vm.sh(f"{release}; zfs destroy -R {made.name}; rm -rf /var/lib/snapbreaker/0*")


@pytest.fixture(params=["library", "program"])
def way(request: pytest.FixtureRequest, zfs_vm: ZfsVm) -> Iterator[str]:
    """How ZFS is asked: through pyzfs, or by zfs(8) where that is not installed."""
    if request.param == "program":
        zfs_vm.sh(f"mv {LIBRARY} {LIBRARY}.away")
    yield request.param
    if request.param == "program":
        zfs_vm.sh(f"mv {LIBRARY}.away {LIBRARY}")


@pytest.mark.parametrize("xattr", soak.cases(["sa"], ["on"]))
def test_a_hostile_deploy_is_put_back(datasets: Datasets, xattr: str) -> None:
    datasets.vm.sh(f"zfs set xattr={xattr} {datasets.name}; {HOSTILE} seed {datasets.path}/root")
    datasets.save()
    deploy = ("python3", "-m", "tests.lab.hostile", "deploy", f"{datasets.path}/root", f"/root/pids.{xattr}")
    done = datasets.vm.snapbreaker("run", "--scope", datasets.path, "--", *deploy, cwd=JUDGE, timeout=180)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "(zfs)" in done.stderr
    assert datasets.differences() == ""


def test_a_hostile_change_is_undone_after_its_commit(datasets: Datasets) -> None:
    datasets.vm.sh(f"{HOSTILE} seed {datasets.path}/root")
    datasets.save()
    mutate = ("python3", "-m", "tests.lab.hostile", "mutate", f"{datasets.path}/root")
    done = datasets.vm.snapbreaker("run", "--scope", datasets.path, "--", *mutate, cwd=JUDGE, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert datasets.differences()
    done = datasets.vm.snapbreaker("rollback", "--last", "--yes", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert datasets.differences() == ""
    assert len(datasets.snapshots()) == 2, "the checkpoint is whole until it is pruned"


def test_datasets_are_snapshotted_at_one_instant_and_held(datasets: Datasets, way: str) -> None:
    datasets.tripped("echo after >file; echo after >child/file; rm -r child/*")
    assert datasets.differences() == ""
    facts = [line.split("\t") for line in datasets.snapshots("name,createtxg,userrefs,org.snapbreaker:checkpoint")]
    assert [name.partition("@")[0] for name, *_ in facts] == [datasets.name, f"{datasets.name}/child"]
    assert len({name.partition("@")[2] for name, *_ in facts}) == 1
    assert len({txg for _, txg, *_ in facts}) == 1, "not of one transaction group"
    assert {held for _, _, held, _ in facts} == {"1"}
    refused = datasets.vm.run("zfs", "destroy", facts[0][0])
    assert "busy" in refused.stderr
    deleted = datasets.vm.snapbreaker("checkpoint", "delete", facts[0][3])
    assert deleted.returncode == 0, deleted.stderr
    assert datasets.snapshots() == []
    assert datasets.differences() == ""


def test_a_failed_create_leaves_nothing(datasets: Datasets, way: str) -> None:
    """There is no room for what a snapshot in the second pool would hold: then the first one's go too."""
    there = f"{datasets.path}/away"
    reserve = "zfs create -o reservation=$(($(zfs list -Hpo avail other) - (1 << 20))) other/all"
    limited = f"zfs create -o refreservation=16M -o mountpoint={there} other/limited"
    datasets.vm.sh(f"{limited}; head -c 8M /dev/urandom >{there}/file; sync; zpool sync; {reserve}")
    done = datasets.tripped("touch ran", 4)
    assert "other/limited" in done.stderr
    assert "out of space" in done.stderr or "No space" in done.stderr
    assert datasets.snapshots() == []
    datasets.vm.sh(f"zfs destroy -r other/limited; zfs destroy other/all; test ! -e {datasets.path}/ran")


@pytest.mark.parametrize("backend", ["zfs", "filecopy"])
def test_what_no_ctime_tells_is_found(datasets: Datasets, backend: str) -> None:
    datasets.vm.sh(f"chattr -p 3 {datasets.path}/child/file; chattr +d {datasets.path}/child")
    datasets.save()
    script = "chattr -p 5 file; chattr +d file; chattr -p 6 child/file; chattr -d child; chattr +P child"
    done = datasets.tripped(script, 1, "--backend", backend)
    assert datasets.differences() == ""
    assert "3 changed" in done.stderr


def test_snapshots_and_clones_of_others_stay(datasets: Datasets) -> None:
    """A newer snapshot, a clone of it, and a clone of the checkpoint's own snapshot."""
    name = datasets.name
    datasets.tripped(f"echo after >file; zfs snapshot {name}@theirs; zfs clone {name}@theirs {name}-clone")
    assert datasets.differences() == ""
    own = datasets.snapshots()[0]
    datasets.vm.sh(f"test $(zfs list -H -o name {name}@theirs) = {name}@theirs; zfs clone {own} {name}-second")
    identity = own.partition("@snapbreaker-")[2].rpartition("-")[0]
    deleted = datasets.vm.snapbreaker("checkpoint", "delete", identity)
    assert deleted.returncode == 0, deleted.stderr
    assert datasets.vm.sh(f"zfs list -H -o name -r tank | grep {name}-").split() == [
        f"{name}-clone",
        f"{name}-second",
    ]
    assert datasets.snapshots("name,defer_destroy") == [f"{own}\ton"]
    datasets.vm.sh(f"zfs destroy {name}-second; zfs destroy {name}-clone")
    assert datasets.snapshots() == []


def test_a_snapshot_that_was_destroyed_is_an_invalid_checkpoint(datasets: Datasets) -> None:
    steal = (
        f"snap=$(zfs list -Ho name -t snapshot {datasets.name} | grep @snapbreaker); zfs release snapbreaker $snap"
    )
    done = datasets.tripped(f"echo after >file; {steal}; zfs destroy $snap", 3)
    said = " ".join((done.stdout + done.stderr).split())  # the report is wrapped
    assert "was destroyed" in said, said
    again = datasets.tripped(f"echo after >file; {steal}; zfs destroy $snap; zfs snapshot $snap", 3)
    said = " ".join((again.stdout + again.stderr).split())
    assert "another snapshot now" in said, said


def test_a_renamed_dataset_goes_back(datasets: Datasets) -> None:
    renamed = f"tank/renamed{datasets.number}"
    datasets.tripped(f"echo after >file; cd /; zfs rename {datasets.name} {renamed}")
    assert datasets.differences() == ""
    datasets.vm.sh(f"zfs rename {renamed} {datasets.name}")


def test_a_busy_dataset_goes_back(datasets: Datasets) -> None:
    busy = datasets.vm.start("sh", "-c", f"cd {datasets.path}/child; exec sleep 1000 <file")
    datasets.tripped("rm file child/file; mkdir file")
    datasets.vm.kill(busy)
    datasets.vm.wait(busy)
    assert datasets.differences() == ""


@pytest.mark.parametrize("limit", soak.cases(["quota"], ["refquota"]))
def test_a_full_dataset_goes_back(datasets: Datasets, limit: str) -> None:
    datasets.vm.sh(f"zfs set {limit}=24M {datasets.name}; head -c 8M /dev/urandom >{datasets.path}/big")
    datasets.save()
    fill = "rm file; echo more >big; head -c 40M /dev/urandom >fill || true; head -c 1M /dev/urandom >more || true"
    datasets.tripped(fill)
    assert datasets.differences() == ""


def test_private_mounts_and_hidden_or_legacy_mount_points(datasets: Datasets) -> None:
    name, path = datasets.name, datasets.path
    command = f"snapbreaker run --scope {path} -- sh -c 'echo after >{path}/file; echo Error: it failed'"
    done = datasets.vm.run("unshare", "--mount", "--propagation", "private", "sh", "-c", command)
    assert done.returncode == 1, done.stdout + done.stderr
    assert datasets.differences() == ""
    datasets.vm.sh(
        f"zfs set mountpoint=legacy {name}; mount -t zfs {name} {path}; mount -t zfs {name}/child {path}/child"
    )
    datasets.tripped("echo after >file; echo after >child/file")
    assert datasets.differences() == ""
    datasets.vm.sh(f"zfs set snapdir=visible {name}; ls {path}/.zfs/snapshot/*")
    datasets.tripped("echo after >file; ls .zfs/snapshot/*")
    datasets.vm.sh(f"zfs set snapdir=hidden {name}")
    assert datasets.differences() == ""


def test_doctor_says_why_not(datasets: Datasets) -> None:
    def reasons() -> str:
        listed = datasets.vm.snapbreaker("doctor", "--scope", f"{datasets.path}/child")
        return listed.stdout.partition("  zfs: ")[2].partition("  lvm")[0]

    assert reasons() == "available\n"
    datasets.vm.sh(f"zfs set readonly=on {datasets.name}/child")
    assert f"{datasets.name}/child is read-only" in reasons()
    datasets.vm.sh(
        f"zfs inherit readonly {datasets.name}/child; mv {LIBRARY} {LIBRARY}.away; mv /usr/sbin/zfs /root"
    )
    assert "apt-get install zfsutils-linux" in reasons()
    datasets.vm.sh(f"mv {LIBRARY}.away {LIBRARY}; mv /root/zfs /usr/sbin")


def test_datasets_that_the_command_makes_and_wants_to_destroy(datasets: Datasets) -> None:
    """The one it made is unmounted, and stays; the one it was to destroy is held by the snapshot."""
    made, child = f"{datasets.name}/made", f"{datasets.name}/child"
    done = datasets.tripped(f"zfs create {made}; echo x >made/file; ! zfs destroy -r {child}; ls child")
    assert f"{datasets.path}/made" in done.stderr
    assert datasets.vm.sh(f"zfs get -Ho value mounted {made}").strip() == "no"
    assert datasets.differences() == ""


GROUP = """udevadm settle --timeout=30 || :
vgcreate -qq vg /dev/ubdd; lvcreate -qq -y -W y -L 160m -n volume vg; mke2fs -q -t ext4 -b 4096 /dev/vg/volume
mkdir /lvm; mount /dev/vg/volume /lvm; mkdir /lvm/srv; echo before >/lvm/file"""
UNGROUP = "umount /lvm; rmdir /lvm; vgremove -qq -y vg"


def test_lvm_and_zfs_are_one_checkpoint(datasets: Datasets) -> None:
    """A dataset below a logical volume, as ZFS /srv under an LVM root: both go back, or neither was recorded."""
    vm, name = datasets.vm, datasets.name
    places = {"/lvm": "/root/lvm", "/lvm/srv": "/root/srv", "/lvm/srv/child": "/root/child"}
    vm.sh(f"{GROUP}; zfs set mountpoint=/lvm/srv {name}")
    for place, saved in places.items():
        vm.sh(f"{HOSTILE} seed {place}/root; sync; {COMPARE} save {place} {saved}")
    change = "".join(
        f"python3 -m tests.lab.hostile mutate {place}/root; echo x >{place}/new; " for place in places
    )
    command = ("sh", "-ec", f"{change} rm /lvm/file; echo Error: it failed")
    done = vm.snapbreaker("run", "--scope", "/lvm", "--", *command, cwd=JUDGE, timeout=180)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "/lvm (lvm), /lvm/srv (zfs), /lvm/srv/child (zfs)" in done.stderr
    for place, saved in places.items():
        vm.sh(f"{COMPARE} diff {place} {saved}")
    vm.sh("snapbreaker checkpoint delete $(ls /var/lib/snapbreaker | grep ^0)")
    reserve = "zfs create -o reservation=$(($(zfs list -Hpo avail other) - (1 << 20))) other/all"
    limited = "zfs create -o refreservation=16M -o mountpoint=/lvm/away other/limited"
    vm.sh(f"{limited}; head -c 8M /dev/urandom >/lvm/away/file; sync; zpool sync; {reserve}")
    done = vm.snapbreaker("run", "--scope", "/lvm", "--", "touch", "/lvm/ran", timeout=120)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "other/limited" in done.stderr
    vm.sh("test ! -e /lvm/ran")
    assert vm.sh("lvs --noheadings -o lv_name vg").split() == ["volume"], "of the volume that was recorded first"
    assert datasets.snapshots() == []
    vm.sh("zfs destroy -r other/limited; zfs destroy other/all")
    vm.sh(f"zfs set mountpoint={datasets.path} {name}; {UNGROUP}")
