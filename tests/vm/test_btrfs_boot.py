"""A root on btrfs is replaced at the next boot: real reboots, and power cuts on both sides of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import cgroups, soak, vm_roots
from tests.lab.uml import Uml
from tests.lab.vm import Vm
from tests.vm.whole import called_off, change, differences, forget, prepared, replaced, state, well

PLACES = ("/", "/home")
PREPARE = """
btrfs -q subvolume create /var/lib/machines; btrfs -q subvolume create /srv/sub; echo old >/srv/sub/file
mkdir -p /var/tmp/kept; echo old >/home/file; snapbreaker install-service >/dev/null
echo old >/var/log/service.log
"""
CHANGE = """
rm /etc/hosts /usr/bin/lsattr; echo bad >>/etc/issue; useradd deploy; chmod 700 /srv; echo new >/home/file
btrfs -q subvolume delete /srv/sub >/dev/null; btrfs -q subvolume create /srv/more; echo x >/srv/more/file
"""

BEGUN = "it has begun"
SCHEDULE = f"""
snapbreaker rollback --last --at-boot --yes &
until grep -q at_boot /var/lib/snapbreaker/0*/state.json; do sleep 0.02; done
echo {BEGUN} >/dev/console; wait
"""


@pytest.fixture(scope="module")
def machine(lab: Path) -> Iterator[Vm]:
    if reason := Uml.missing():
        pytest.skip(reason)
    vm = vm_roots.create(lab, "btrfs")
    try:
        yield prepared(vm, PREPARE, PLACES)
    finally:
        vm.close()


def subvolumes(vm: Vm) -> list[str]:
    return [line.split(" path ")[1] for line in well(vm, "btrfs", "subvolume", "list", "/").splitlines()]


def test_the_next_boot_is_on_the_checkpoint(machine: Vm) -> None:
    vm = machine
    change(vm, CHANGE)
    replaced(vm, "/ becomes what it was at the next boot (btrfs)", meanwhile="mkdir /var/lib/machines/x")
    assert differences(vm, PLACES) == ""
    assert well(vm, "findmnt", "-no", "FSROOT", "/") == "/@\n"
    kept = [path for path in subvolumes(vm) if path.startswith(".snapbreaker/at-boot/")]
    assert any(path.endswith("-0/other") for path in kept)
    forget(vm)
    assert [path for path in subvolumes(vm) if "at-boot" in path] == []
    assert differences(vm, PLACES) == ""
    well(vm, "snapbreaker", "run", "--", "true")
    forget(vm)


def test_it_is_called_off(machine: Vm) -> None:
    vm = machine
    change(vm, CHANGE)
    before = subvolumes(vm)
    called_off(vm)
    assert subvolumes(vm) == before
    well(vm, "id", "deploy")
    well(vm, "snapbreaker", "rollback", "--last", "--yes")
    assert differences(vm, PLACES) == ""
    forget(vm)


@pytest.mark.parametrize("seed", range(3))
def test_power_cuts_before_and_in_that_boot(machine: Vm, seed: int) -> None:
    """A root is found at each boot, and in the end it is the checkpoint."""
    vm = machine
    dice = soak.dice(seed)
    for number in range(soak.times(1)):
        change(vm, CHANGE)
        vm.start("sh", "-c", SCHEDULE)
        deadline = time.monotonic() + 60
        while BEGUN not in vm.console():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(dice.uniform(0, 1.5))
        vm.power_cut()
        cut_in_boot(vm, dice.uniform(3, 9))
        ended = state(vm)
        print(f"cut {number + 1}: {ended}")
        assert ended == "rolled-back"
        assert differences(vm, PLACES) == ""
        forget(vm)
        assert [path for path in subvolumes(vm) if "at-boot" in path] == []


def cut_in_boot(vm: Vm, seconds: float) -> None:
    """The power goes while it boots; ``Vm.boot`` tries once more."""
    states: list[str] = []
    boot = threading.Thread(target=lambda: states.append(vm.boot()))
    boot.start()
    time.sleep(seconds)
    if not states and vm.cgroup:
        cgroups.kill(vm.cgroup)
    boot.join()
    assert states == ["running"], well(vm, "journalctl", "-b", "-u", "snapbreaker-recover", "--no-pager")


def test_what_defeats_it_is_told(machine: Vm) -> None:
    vm = machine
    change(vm, CHANGE)
    rollback = ("snapbreaker", "rollback", "--last", "--at-boot", "--yes")
    assert "needs systemd 254, and this is 252" in well(vm, *rollback, "--soft-reboot", code=4)
    assert state(vm) == "committed"
    well(vm, "sed", "-i", "s/subvol=@home,/subvolid=257,/; s/subvol=@,/subvolid=256,/", "/etc/fstab")
    told = well(vm, *rollback, code=4)
    assert "fstab mounts / by subvolid=" in told
    assert "name it: subvol=@" in told
    assert state(vm) == "committed"
