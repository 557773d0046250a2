"""`run -- apt-get install` without a scope, on a booted machine whose root filesystem is the volume."""

from __future__ import annotations

from tests import comparer
from tests.lab.machine import Machine
from tests.system.facts import facts, processes

INSTALL = ("--env", "DEBIAN_FRONTEND=noninteractive", "--", "apt-get", "install", "-y", "--no-install-recommends")


def fetch(machine: Machine, address: str = "http://127.0.0.1/") -> int:
    return machine.run("curl", "-sf", "-o", "/dev/null", "--retry", "3", "--retry-connrefused", address).returncode


def test_nginx_comes_and_goes_without_a_trace(machine: Machine) -> None:
    before, system, running = machine.snapshot(), facts(machine), processes(machine)
    result = machine.snapbreaker("run", *INSTALL, "nginx-light")
    assert result.returncode == 0, result.stderr
    assert "committed" in result.stderr
    assert fetch(machine) == 0
    assert "nginx.service" in facts(machine).units
    back = machine.snapbreaker("rollback", "--last", "--yes")
    assert back.returncode == 0, back.stderr
    assert fetch(machine) != 0
    assert machine.run("systemctl", "cat", "nginx.service").returncode != 0
    assert comparer.differences(before, machine.snapshot()) == []
    assert system.differences(facts(machine)) == {}
    assert processes(machine) == running
    assert machine.run("ls", "/var/log/nginx").returncode != 0
    saved = machine.run("sh", "-c", "cat /var/lib/snapbreaker/0*/saved/var/log/nginx/access.log").stdout
    assert "GET / HTTP" in saved
    assert machine.snapbreaker("verify", "--last").returncode == 0
    again = machine.snapbreaker("rollback", "--last", "--redo", "--yes")
    assert again.returncode == 0, again.stderr
    assert fetch(machine) == 0
    assert machine.run("dpkg", "--audit").stdout == ""
