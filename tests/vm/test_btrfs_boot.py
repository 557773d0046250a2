"""A root on btrfs is replaced at the next boot: real reboots, and power cuts on both sides of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import comparer
from tests.lab import cgroups, soak, vm_roots
from tests.lab.uml import Uml
from tests.lab.vm import Vm
from tests.vm.conftest import booted
from tests.vm.power_cuts import COMPARER, EXCLUDED

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


@pytest.fixture
def machine(lab: Path) -> Iterator[Vm]:
    if reason := Uml.missing():
        pytest.skip(reason)
    vm = vm_roots.create(lab, "btrfs")
    try:
        booted(vm).put(Path(comparer.__file__), COMPARER)
        well(vm, "sh", "-ec", PREPARE)
        look(vm)
        yield vm
    finally:
        vm.close()


def well(vm: Vm, *argv: str, code: int = 0) -> str:
    done = vm.run(*argv, timeout=200)
    assert done.returncode == code, f"{argv}: {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def look(vm: Vm) -> None:
    """What is there now is what has to come back."""
    for name, place in (("root", "/"), ("home", "/home")):
        well(vm, "python3", COMPARER, "save", place, f"/var/tmp/{name}", *EXCLUDED)
    well(vm, "sync")


def differences(vm: Vm) -> str:
    found = ""
    for name, place in (("root", "/"), ("home", "/home")):
        done = vm.run("python3", COMPARER, "diff", place, f"/var/tmp/{name}", *EXCLUDED, timeout=200)
        found += done.stdout.removeprefix("no difference\n")
    return found


def state(vm: Vm) -> str:
    return str(json.loads(well(vm, "snapbreaker", "checkpoint", "list", "--json").splitlines()[-1])["state"])


def subvolumes(vm: Vm) -> list[str]:
    return [line.split(" path ")[1] for line in well(vm, "btrfs", "subvolume", "list", "/").splitlines()]


def change(vm: Vm) -> None:
    """By a run that is committed."""
    well(vm, "snapbreaker", "run", "--", "sh", "-ec", CHANGE)
    assert state(vm) == "committed"


def test_the_next_boot_is_on_the_checkpoint(machine: Vm) -> None:
    vm = machine
    change(vm)
    told = well(vm, "snapbreaker", "rollback", "--last", "--at-boot", "--yes", code=5)
    assert "takes effect at reboot (exit 5)" in told
    assert "/ becomes what it was at the next boot (btrfs)" in told
    assert state(vm) == "reboot-pending"
    assert "useradd" not in well(vm, "id", "deploy")  # nothing has changed under what runs
    assert "--call-off" in well(vm, "snapbreaker", "run", "--", "true", code=4)
    later = "echo later >>/var/log/service.log; echo later >/var/tmp/kept/file; echo lost >/etc/lost; sync"
    well(vm, "sh", "-ec", f"mkdir /var/lib/machines/x; {later}")
    vm.power_cut()
    assert vm.boot() == "running"
    assert differences(vm) == ""
    assert state(vm) == "rolled-back"
    assert well(vm, "findmnt", "-no", "FSROOT", "/") == "/@\n"
    assert well(vm, "cat", "/var/tmp/kept/file") == "later\n"
    assert well(vm, "cat", "/var/log/service.log") == "old\nlater\n"
    report = json.loads(well(vm, "snapbreaker", "report", "--last", "--format", "json"))
    assert report["outcome"] == "rolled-back"
    well(vm, "snapbreaker", "verify", "--last")
    kept = [path for path in subvolumes(vm) if path.startswith(".snapbreaker/at-boot/")]
    assert any(path.endswith("-0/other") for path in kept)
    well(vm, "snapbreaker", "checkpoint", "delete", report["id"])
    assert [path for path in subvolumes(vm) if "at-boot" in path] == []
    assert differences(vm) == ""
    well(vm, "snapbreaker", "run", "--", "true")


def test_it_is_called_off(machine: Vm) -> None:
    vm = machine
    change(vm)
    before = subvolumes(vm)
    well(vm, "snapbreaker", "rollback", "--last", "--at-boot", "--yes", code=5)
    well(vm, "snapbreaker", "rollback", "--last", "--call-off")
    assert state(vm) == "committed"
    assert subvolumes(vm) == before
    well(vm, "snapbreaker", "rollback", "--last", "--call-off", code=4)
    vm.power_off()
    assert vm.boot() == "running"
    well(vm, "id", "deploy")
    well(vm, "snapbreaker", "rollback", "--last", "--yes")
    assert differences(vm) == ""


@pytest.mark.parametrize("seed", range(3))
def test_power_cuts_before_and_in_that_boot(machine: Vm, seed: int) -> None:
    """A root is found at each boot, and in the end it is the checkpoint."""
    vm = machine
    dice = soak.dice(seed)
    for number in range(soak.times(1)):
        change(vm)
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
        assert differences(vm) == ""
        well(vm, "sh", "-c", "snapbreaker checkpoint delete $(ls /var/lib/snapbreaker | grep ^0)")
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
    change(vm)
    rollback = ("snapbreaker", "rollback", "--last", "--at-boot", "--yes")
    assert "needs systemd 254, and this is 252" in well(vm, *rollback, "--soft-reboot", code=4)
    assert state(vm) == "committed"
    well(vm, "sed", "-i", "s/subvol=@home,/subvolid=257,/; s/subvol=@,/subvolid=256,/", "/etc/fstab")
    told = well(vm, *rollback, code=4)
    assert "fstab mounts / by subvolid=" in told
    assert "name it: subvol=@" in told
    assert state(vm) == "committed"
