"""The acceptance tests of the Vagrant boxes, on a machine in a container. tests/vm has them in VMs."""

from __future__ import annotations

from pathlib import Path

from tests.lab.machine import Machine

SCRIPT = Path(__file__).resolve().parents[2] / "vagrant/acceptance.sh"


def test_all_promises_are_kept(machine: Machine) -> None:
    (machine.root / "root/acceptance.sh").write_bytes(SCRIPT.read_bytes())
    done = machine.run("sh", "/root/acceptance.sh", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("acceptance: all promises were kept\n")
