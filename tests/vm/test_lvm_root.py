"""A root on LVM, thin or classic, found by Debian's own initramfs: put back live, at boot, after power cuts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab import soak, vm_lvm_root
from tests.lab.errors import LabError
from tests.lab.vm_lvm import LvmVm
from tests.vm.power_cuts import PowerCuts
from tests.vm.whole import differences, look, prepared, put_cutter, state, well

ROUNDS = ("run", "restore", "commit")
CUT = ("lvcreate", "lvchange", "lvremove", "vgcfgrestore")
PREPARE = "mkdir -p /var/tmp/kept; snapbreaker install-service >/dev/null; echo old >/var/log/service.log"
CHANGE = """
rm /etc/hosts /usr/bin/lsattr; echo bad >>/etc/issue; useradd deploy; chmod 700 /srv; echo x >/opt/more
"""


@dataclass(slots=True)
class Root:
    vm: LvmVm
    kind: str

    def well(self, *argv: str, code: int = 0) -> str:
        return well(self.vm, *argv, code=code)

    def back(self, *options: str, code: int = 0) -> str:
        return self.well("snapbreaker", "rollback", "--last", *options, code=code)

    def checkpoint(self) -> str:
        return self.well("snapbreaker", "-q", "checkpoint", "create").split()[0]

    def volumes(self) -> list[str]:
        """With their flags, but not whether they are active."""
        return self.vm.sh("lvs --noheadings -o name,uuid,lv_skip_activation system").splitlines()


# Each boot after a cut compares everything, which takes a minute here: the classic root is for long runs.
KINDS = vm_lvm_root.KINDS if soak.IS_LONG else ("thin",)


@pytest.fixture(params=KINDS, scope="module")
def root(request: pytest.FixtureRequest, lab: Path) -> Iterator[Root]:
    if reason := LvmVm.missing():
        pytest.skip(reason)
    vm = vm_lvm_root.create(lab, request.param)
    try:
        prepared(vm, PREPARE, ())
        put_cutter(vm, CUT, after=True)
        look(vm, ("/",))
        yield Root(vm, request.param)
    finally:
        vm.close()


def test_the_next_boot_is_on_the_checkpoint(root: Root) -> None:
    """Or not, where that is called off."""
    vm = root.vm
    assert vm.sh("findmnt -no SOURCE /") == "/dev/mapper/system-root\n"
    before = root.volumes()
    made = root.checkpoint()
    with_snapshot = root.volumes()
    named = vm.sh("ls -l /dev/disk/by-uuid; ls -l /dev/mapper/system-root")
    assert named.count(named.split()[-1]) == 2, f"the snapshot has the names of its origin: {named}"
    vm.sh(CHANGE)
    told = root.back("--at-boot", "--yes", code=5)
    assert "/ becomes what it was at the next boot (lvm)" in told
    assert state(root.vm) == "reboot-pending"
    assert "--call-off" in root.well("snapbreaker", "run", "--", "true", code=4)
    root.back("--call-off")
    assert state(root.vm) == "ready"
    assert root.volumes() == with_snapshot
    root.back("--call-off", code=4)
    root.back("--at-boot", "--yes", code=5)
    vm.sh("echo later >>/var/log/service.log; echo later >/var/tmp/kept/file; echo lost >/etc/lost; sync")
    vm.power_cut()
    assert vm.boot() == "running"
    assert differences(root.vm, ("/",)) == ""
    assert state(root.vm) == "ready"
    assert vm.sh("cat /var/tmp/kept/file /var/log/service.log").split() == ["later", "old", "later"]
    assert vm.sh("findmnt -no SOURCE /") == "/dev/mapper/system-root\n"
    assert json.loads(root.well("snapbreaker", "report", made, "--format", "json"))["outcome"] == "rolled-back"
    assert any("_boot" in line for line in root.volumes()), "what was displaced is kept"
    mine = [made]
    if root.kind == "thin":  # the others have no room for a second one
        mine.append(root.checkpoint())
        vm.sh("echo bad >>/etc/issue")
        root.back("--at-boot", "--yes", code=5)
        vm.power_cut()
        assert vm.boot() == "running"
    for one in mine:  # what the first one had displaced is not what runs by now
        root.well("snapbreaker", "checkpoint", "delete", one)
    assert vm.sh("findmnt -no SOURCE /") == "/dev/mapper/system-root\n"
    assert differences(root.vm, ("/",)) == ""
    assert [line.split()[0] for line in root.volumes()] == [line.split()[0] for line in before]
    root.well("snapbreaker", "run", "--", "true")


# (in the run that schedules it, in the boot after it); odd: before a command, even: after it
STEPS = [(6, 2)]
LONG = [(step, 0) for step in range(1, 7)] + [(0, step) for step in range(1, 5)]


@pytest.mark.parametrize("steps", LONG if soak.IS_LONG else STEPS, ids=str)
def test_a_power_cut_at_each_step(root: Root, steps: tuple[int, int]) -> None:
    """A root is found at each boot, and in the end it is the checkpoint. The sixth is after the exchange."""
    vm, (scheduling, booting) = root.vm, steps
    made = root.checkpoint()
    vm.sh(CHANGE)
    if scheduling:
        vm.sh(f"echo 0 >/run/cut-count; echo {scheduling} >/run/cut-at")
        vm.start("snapbreaker", "rollback", "--last", "--at-boot", "--yes")
        assert vm.kernel
        vm.kernel.wait(120)
    else:
        root.back("--at-boot", "--yes", code=5)
    vm.power_cut()
    if booting:
        vm.arguments = (f"cut_at={booting}",)
        with pytest.raises(LabError, match="died"):  # twice, at the same step
            vm.boot()
        vm.arguments = ()
    assert vm.boot() == "running"
    assert state(root.vm) == "ready"
    assert differences(root.vm, ("/",)) == ""
    root.well("snapbreaker", "checkpoint", "delete", made)
    assert [line for line in root.volumes() if "snapbreaker" in line] == []


@soak.only_long
def test_power_cuts_in_runs(root: Root) -> None:
    """Of the snapshot nothing is left afterwards, whenever the power went."""
    vm = root.vm
    cuts = PowerCuts.on(vm)
    dice = soak.dice(len(root.kind))
    for number in range(soak.times(len(ROUNDS))):
        phase = ROUNDS[number % len(ROUNDS)]
        print(f"{root.kind}: cut {number + 1} in {phase}:", cuts.cut(phase, dice))
        assert vm.sh("lvs --noheadings -o lv_name -S 'lv_name=~snapbreaker'") == ""


def test_what_defeats_it_is_told(root: Root) -> None:
    vm = root.vm
    made = root.checkpoint()
    vm.sh("cp /etc/fstab /run/; sed -i 's:^/dev/system/root:/dev/disk/by-id/dm-uuid-LVM-x:' /etc/fstab")
    hog = "lvcreate -qq -y -W n -l 90%FREE -n hog system"
    vm.sh(hog)
    told = root.back("--at-boot", "--yes", code=4)
    vm.sh("cp /run/fstab /etc/; lvremove -qq -y system/hog")
    assert "fstab mounts / by the identity of the logical volume" in told
    assert "name it: /dev/system/root" in told
    if root.kind == "classic":
        assert "a copy of all of its" in told
    assert state(root.vm) == "ready"
    root.well("snapbreaker", "checkpoint", "delete", made)
