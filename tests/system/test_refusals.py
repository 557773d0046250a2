"""Where packages or units are in the middle of something no checkpoint is made, and nothing is run: exit 4."""

from __future__ import annotations

import json
import time

from tests import comparer
from tests.lab import debs
from tests.lab.debs import Package
from tests.lab.machine import Machine
from tests.system.judge import Judge, until_said

LOCK = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(100)
"""


def refused(machine: Machine, *words: str) -> None:
    """One line says why, one how to go on; the command was not run, and nothing is left of the attempt."""
    before = machine.snapshot()
    result = machine.snapbreaker("run", "--", "touch", "/root/was-run")
    assert result.returncode == 4, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 2, result.stderr
    assert lines[0].startswith("snapbreaker: ")
    for word in words:
        assert word in lines[0]
    assert lines[1].startswith("snapbreaker: hint: ")
    assert not (machine.root / "root/was-run").exists()
    assert comparer.differences(before, machine.snapshot()) == []
    assert machine.snapbreaker("checkpoint", "list", "--json").stdout == ""


def test_packages_are_half_way(ext4_machine: Machine) -> None:
    machine = ext4_machine
    debs.add(
        machine.root,
        Package("interested", triggers="interest /usr/share/watched\n", scripts={"postinst": "true"}),
        Package("activating", files={"/usr/share/watched/file": "new\n"}),
        Package("half", scripts={"postinst": "exit 1"}),
    )
    assert machine.run("dpkg", "-i", "/debs/interested_1.0_all.deb").returncode == 0
    judge = Judge.of(machine)
    machine.run("dpkg", "--no-triggers", "-i", "/debs/activating_1.0_all.deb")
    status = machine.run("dpkg-query", "-W", "-f", "${Status}\n", "interested", "activating").stdout
    assert status == "install ok triggers-awaited\ninstall ok triggers-pending\n"
    refused(machine, "interested (triggers-pending)", "activating (triggers-awaited)")
    assert machine.run("dpkg", "--purge", "activating").returncode == 0
    machine.run("dpkg", "--configure", "-a")
    assert machine.run("dpkg", "-i", "/debs/half_1.0_all.deb").returncode != 0
    refused(machine, "half (half-configured)")
    assert machine.run("dpkg", "--purge", "half").returncode == 0
    assert judge.facts.differences(type(judge).of(machine).facts) == {}
    assert machine.snapbreaker("run", "--", "true").returncode == 0


def test_a_package_manager_is_at_work(ext4_machine: Machine) -> None:
    for path in ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock"):
        holder = ext4_machine.start("python3", "-c", LOCK, path)
        until_said(holder, b"locked")
        refused(ext4_machine, f"a package manager is at work: {path} is locked")
        ext4_machine.signal(holder, 9)
        holder.wait(10)
    assert ext4_machine.snapbreaker("run", "--", "true").returncode == 0


def test_systemd_is_at_work(ext4_machine: Machine) -> None:
    machine = ext4_machine
    unit = machine.root / "etc/systemd/system/slow.service"
    unit.write_text("[Service]\nType=oneshot\nExecStart=/bin/sleep 8\n")
    assert machine.run("systemctl", "daemon-reload").returncode == 0
    assert machine.run("systemctl", "start", "--no-block", "slow.service").returncode == 0
    began = time.monotonic()
    refused(machine, "systemd has jobs queued: start of slow.service")
    assert time.monotonic() - began >= 5
    # What ends within a few seconds is waited for.
    committed = machine.snapbreaker("run", "--json", "--", "true")
    assert committed.returncode == 0, committed.stderr
    assert json.loads(committed.stdout.splitlines()[-1])["event"] == "finished"
