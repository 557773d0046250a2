"""A root on LVM, thin or classic, found by Debian's own initramfs: put back live, at boot, after power cuts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import comparer
from tests.lab import soak, vm_lvm_root
from tests.lab.errors import LabError
from tests.lab.vm_lvm import LvmVm
from tests.vm.conftest import booted
from tests.vm.power_cuts import BEFORE, COMPARER, EXCLUDED, PowerCuts

ROUNDS = ("run", "restore", "commit")
# Found before lvm's own: the power goes before or after a command that changes something, counted from the boot.
CUTTER = r"""#!/bin/sh
cut() {
	count=$(($(cat /run/cut-count 2>/dev/null || echo 0) + 1))
	echo $count >/run/cut-count
	at=$(cat /run/cut-at 2>/dev/null || sed -n 's/.*cut_at=\([0-9]*\).*/\1/p' /proc/cmdline)
	[ "$count" != "$at" ] || { echo o >/proc/sysrq-trigger; sleep 60; }
}
cut
/usr/sbin/${0##*/} "$@"
code=$?
cut
exit $code
"""
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
        done = self.vm.run(*argv, timeout=240)
        assert done.returncode == code, f"{argv}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def back(self, *options: str, code: int = 0) -> str:
        return self.well("snapbreaker", "rollback", "--last", *options, code=code)

    def checkpoint(self) -> str:
        return self.well("snapbreaker", "-q", "checkpoint", "create").split()[0]

    def state(self) -> str:
        listed = self.well("snapbreaker", "checkpoint", "list", "--json").splitlines()
        return str(json.loads(listed[-1])["state"])

    def volumes(self) -> list[str]:
        """With their flags, but not whether they are active."""
        return self.vm.sh("lvs --noheadings -o name,uuid,lv_skip_activation system").splitlines()

    def differences(self) -> str:
        done = self.vm.run("python3", COMPARER, "diff", "/", BEFORE, *EXCLUDED, timeout=240)
        return done.stdout.removeprefix("no difference\n") + done.stderr


# Each boot after a cut compares everything, which takes a minute here: the classic root is for long runs.
KINDS = vm_lvm_root.KINDS if soak.IS_LONG else ("thin",)


@pytest.fixture(params=KINDS, scope="module")
def root(request: pytest.FixtureRequest, lab: Path) -> Iterator[Root]:
    if reason := LvmVm.missing():
        pytest.skip(reason)
    vm = vm_lvm_root.create(lab, request.param)
    try:
        booted(vm).put(Path(comparer.__file__), COMPARER)
        for name in CUT:
            vm.put(CUTTER.encode(), f"/usr/local/sbin/{name}", 0o755)
        vm.sh(PREPARE)
        vm.sh(f"python3 {COMPARER} save / {BEFORE} {' '.join(EXCLUDED)}; sync")
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
    assert root.state() == "reboot-pending"
    assert "--call-off" in root.well("snapbreaker", "run", "--", "true", code=4)
    root.back("--call-off")
    assert root.state() == "ready"
    assert root.volumes() == with_snapshot
    root.back("--call-off", code=4)
    root.back("--at-boot", "--yes", code=5)
    vm.sh("echo later >>/var/log/service.log; echo later >/var/tmp/kept/file; echo lost >/etc/lost; sync")
    vm.power_cut()
    assert vm.boot() == "running"
    assert root.differences() == ""
    assert root.state() == "ready"
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
    assert root.differences() == ""
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
    assert root.state() == "ready"
    assert root.differences() == ""
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
    assert root.state() == "ready"
    root.well("snapbreaker", "checkpoint", "delete", made)
