"""Packages that break dpkg, hang, or take away what the machine itself runs on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.lab import debs, soak
from tests.lab.debs import Package
from tests.lab.machine import Machine
from tests.system.breakages import FATAL, SAID, breaking, essential, package_name
from tests.system.judge import INSTALL, PROBE, Judge, apt_works, run, until_said

HOOKS = "etc/initramfs-tools/scripts/local-bottom"
SHRUGS_OFF = """trap '' TERM INT HUP
setsid sh -c 'trap "" TERM; while :; do sleep 1002; done' &
while :; do sleep 1001; done"""


@pytest.fixture
def prey(machine: Machine) -> Machine:
    """Has the first version of a package whose second one kills dpkg when half of its files are replaced."""
    debs.add(machine.root, essential("1.0"))
    installed = machine.run("apt-get", "-qq", "-y", "install", "half-unpacked")
    assert installed.returncode == 0, installed.stderr
    debs.add(
        machine.root,
        essential("2.0", "kill -9 $dpkg"),
        Package("kills-dpkg", scripts={"postinst": "kill -9 $PPID"}),
        Package(PROBE),
    )
    return machine


def test_dpkg_is_killed(prey: Machine) -> None:
    judge = Judge.of(prey)
    for package in ("half-unpacked", "kills-dpkg"):
        result = run(prey, package)
        assert result.returncode == 1, result.stderr
        assert "rolled back and verified" in result.stderr
    judge.undone()
    apt_works(prey)


@pytest.mark.parametrize(("script", "grace"), [("sleep 1001", "0"), (SHRUGS_OFF, "0.5")], ids=["calm", "stubborn"])
def test_a_postinst_hangs(ext4_machine: Machine, script: str, grace: str) -> None:
    debs.add(ext4_machine.root, Package("hangs", scripts={"postinst": script}), Package(PROBE))
    judge = Judge.of(ext4_machine)
    result = run(ext4_machine, "hangs", options=("--idle", "2", "--grace", grace))
    assert result.returncode == 1, result.stderr
    assert "tripped by TIMEOUT, rolled back and verified" in result.stderr
    judge.undone()
    apt_works(ext4_machine)


def protected(machine: Machine, name: str) -> Machine:
    """With the recovery at boot installed, and with the packages that break it by ``name``."""
    (machine.root / HOOKS).mkdir(parents=True)
    installed = machine.snapbreaker("install-service")
    assert installed.returncode == 0, installed.stderr
    debs.add(machine.root, breaking(name), breaking(name, waits=True), Package(PROBE))
    return machine


def halted(machine: Machine, name: str, judge: Judge) -> None:
    result = run(machine, package_name(name))
    assert result.returncode == 1, result.stderr
    assert SAID in result.stdout
    assert "Rollback completed successfully (exit 1)" in result.stderr
    judge.undone()


def cut_off(machine: Machine, name: str, judge: Judge, initramfs: Path) -> None:
    """The power goes while it is broken; the next boot mends it."""
    process = machine.start("snapbreaker", "run", *INSTALL, package_name(name, waits=True))
    until_said(process, SAID.encode())
    machine.crash()
    hook = initramfs / "snapbreaker"
    hook.write_bytes((machine.root / HOOKS / "snapbreaker").read_bytes())
    hook.chmod(0o755)
    # Without the hook, as on a machine that has no initramfs-tools, the unit does it all where init can start.
    state = machine.boot(before_init=[hook] if name in FATAL else [])
    assert (state, machine.run("systemctl", "list-jobs").stdout) == ("running", "No jobs running.\n")
    told = machine.run("journalctl", "-b", "-u", "snapbreaker-recover", "-o", "cat").stdout
    assert "rolled back and verified" in told, machine.console()
    assert re.search(r"Undone +[1-9][\d,]* added", told), told
    judge.undone(rebooted=True)
    apt_works(machine)


@pytest.mark.parametrize("name", ["libc-moved", "python-library-moved"])
def test_the_machine_is_broken(machine: Machine, name: str, tmp_path: Path) -> None:
    judge = Judge.of(protected(machine, name))
    halted(machine, name, judge)
    cut_off(machine, name, judge, tmp_path)


@pytest.mark.parametrize("name", soak.cases(["loader-replaced", "python-emptied"], ["python-replaced"]))
def test_the_machine_is_broken_otherwise(ext4_machine: Machine, name: str, tmp_path: Path) -> None:
    judge = Judge.of(protected(ext4_machine, name))
    halted(ext4_machine, name, judge)
    cut_off(ext4_machine, name, judge, tmp_path)
