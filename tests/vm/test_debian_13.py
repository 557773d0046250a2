"""Debian 13 on btrfs: a run that trips, and a rollback by a soft reboot, which Debian 12 does not know."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab import system, vm_roots
from tests.lab.errors import LabError
from tests.lab.uml import Uml
from tests.lab.vm import Vm
from tests.vm.test_btrfs_boot import CHANGE, PLACES, PREPARE
from tests.vm.whole import differences, prepared, state, well

RECIPE = replace(system.RECIPE, name="system-13", suite="trixie", repository=())


@pytest.fixture
def machine(lab: Path) -> Iterator[Vm]:
    if reason := Uml.missing():
        pytest.skip(reason)
    vm = vm_roots.create(lab, "btrfs", RECIPE)
    try:
        yield prepared(vm, PREPARE, PLACES)
    finally:
        vm.close()


def test_a_soft_reboot_goes_over_to_the_checkpoint(machine: Vm) -> None:
    vm = machine
    tripped = well(vm, "snapbreaker", "run", "--", "sh", "-ec", f"{CHANGE}; echo ERROR: enough", code=1)
    assert "Rollback completed successfully (exit 1)" in tripped
    assert differences(vm, PLACES) == ""
    well(vm, "snapbreaker", "run", "--", "sh", "-ec", CHANGE)
    rollback = ("snapbreaker", "rollback", "--last", "--at-boot", "--soft-reboot", "--yes")
    assert "`systemctl soft-reboot` is enough" in well(vm, *rollback, code=5)
    well(vm, "snapbreaker", "rollback", "--last", "--call-off")
    assert not well(vm, "sh", "-c", "findmnt /run/nextroot || true")
    well(vm, *rollback, code=5)
    assert well(vm, "findmnt", "-no", "FSROOT", "/run/nextroot") == "/@\n"
    kernel = well(vm, "cat", "/proc/sys/kernel/random/boot_id")
    well(vm, "sh", "-c", "echo later >>/var/tmp/kept/file; echo lost >/etc/lost; sync")
    vm.start("sh", "-c", "sleep 0.3; systemctl soft-reboot")
    softly_rebooted(vm)
    assert state(vm) == "rolled-back"
    assert differences(vm, PLACES) == ""
    assert well(vm, "cat", "/var/tmp/kept/file") == "later\n"
    assert well(vm, "cat", "/proc/sys/kernel/random/boot_id") == kernel
    assert well(vm, "systemctl", "is-system-running") == "running\n"
    well(vm, "snapbreaker", "verify", "--last")
    well(vm, "snapbreaker", "run", "--", "true")


def softly_rebooted(vm: Vm) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        time.sleep(2)
        # Whoever answers goes down with the rest, and what was asked then is never answered.
        with suppress(AssertionError, LabError):
            done = vm.run("systemctl", "show", "--property", "SoftRebootsCount", "--value", timeout=20)
            if done.stdout == "1\n":
                break
    well(vm, "systemctl", "is-system-running", "--wait")
