"""Whole machines on whose root a command is tried first: packages, deploys, and who else is at work meanwhile."""

from __future__ import annotations

import pytest

from tests.lab.machine import Machine
from tests.system.conftest import MakeMachine, booted
from tests.system.judge import INSTALL, Judge, packages_are_sound

OVERLAY = ("run", "--backend", "overlay")


def installed(machine: Machine, package: str) -> None:
    result = machine.snapbreaker(*OVERLAY, *INSTALL, package)
    assert result.returncode == 0, result.stdout + result.stderr
    packages_are_sound(machine)


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs"])
def test_nginx_runs_after_commit_and_is_gone_after_rollback(make_machine: MakeMachine, fstype: str) -> None:
    machine = booted(make_machine(fstype))
    judge = Judge.of(machine)
    installed(machine, "nginx-light")
    assert machine.run("systemctl", "is-active", "nginx").stdout.strip() == "active"
    assert machine.run("systemctl", "is-enabled", "nginx").stdout.strip() == "enabled"
    assert "Welcome to nginx" in machine.run("curl", "-s", "http://127.0.0.1/").stdout
    back = machine.snapbreaker("rollback", "--last", "--yes")
    assert back.returncode == 0, back.stderr
    judge.undone()
