"""What a package brings, changes and takes away, undone: conffiles, services, logs, users, ports, holds."""

from __future__ import annotations

import subprocess

import pytest

from tests.lab import debs, soak
from tests.lab.debs import File, Package
from tests.lab.machine import Machine
from tests.system.conftest import MakeMachine, booted
from tests.system.facts import facts
from tests.system.judge import Judge, packages_are_sound

APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y")
DOWNGRADES = """[[rule]]
name = "downgrade"
type = "allow"
pattern = 'dpkg: warning: downgrading .*'
reason = "it was asked for"
"""
LOGGING = """#!/bin/sh
echo started >>/var/log/logging/current
exec sleep infinity
"""
SERVER = "/usr/bin/python3 -m http.server 8080 --bind 127.0.0.1"


def apt(machine: Machine, *words: str) -> None:
    done = machine.run(*APT, "-qq", *words)
    assert done.returncode == 0, done.stderr


def committed(machine: Machine, *command: str, options: tuple[str, ...] = ()) -> None:
    result = machine.snapbreaker("run", *options, "--", *command)
    assert result.returncode == 0, result.stderr


def tripped(machine: Machine, *command: str) -> None:
    script = f"{subprocess.list2cmdline(command)}\necho 'ERROR: that was not it'; sleep 60"
    result = machine.snapbreaker("run", "--", "sh", "-c", script)
    assert result.returncode == 1, result.stderr
    assert "tripped by ERROR, rolled back and verified" in result.stderr


def rolled_back(machine: Machine, *options: str) -> None:
    back = machine.snapbreaker("rollback", "--last", "--yes", *options)
    assert back.returncode == 0, back.stderr


def configured(version: str) -> Package:
    return Package(
        "configured",
        version=version,
        files={"/etc/configured.conf": f"shipped {version}\n", "/usr/share/configured": version},
        conffiles=("/etc/configured.conf",),
    )


@pytest.mark.parametrize(
    ("fstype", "answer"),
    soak.cases([("ext4", "confold"), ("xfs", "confnew")], [("ext4", "confnew"), ("btrfs", "confnew")]),
)
def test_an_edited_conffile_is_upgraded_and_back(make_machine: MakeMachine, fstype: str, answer: str) -> None:
    machine = booted(make_machine(fstype))
    debs.add(machine.root, configured("1.0"))
    apt(machine, "install", "configured")
    conffile = machine.root / "etc/configured.conf"
    conffile.write_text("edited here\n")
    debs.add(machine.root, configured("2.0"))
    judge = Judge.of(machine)
    upgrade = (*APT, "-o", f"Dpkg::Options::=--force-{answer}", "install", "configured")
    committed(machine, *upgrade)
    assert conffile.read_text() == ("edited here\n" if answer == "confold" else "shipped 2.0\n")
    rolled_back(machine)
    judge.undone()
    tripped(machine, *upgrade)
    judge.undone()


def test_a_downgrade(ext4_machine: Machine) -> None:
    machine = ext4_machine
    debs.add(machine.root, configured("1.0"), configured("2.0"))
    apt(machine, "install", "configured")
    (machine.root / "etc/configured.conf").write_text("edited here\n")
    (machine.root / "root/rules.toml").write_text(DOWNGRADES)
    judge = Judge.of(machine)
    options = ("--allow-downgrades", "-o", "Dpkg::Options::=--force-confnew", "install", "configured=1.0")
    result = machine.snapbreaker("run", "--", *APT, *options)
    assert (result.returncode, "dpkg: warning: downgrading configured" in result.stderr) == (1, True), (
        result.stderr
    )
    judge.undone()
    committed(machine, *APT, *options, options=("--rules", "/root/rules.toml"))
    assert (machine.root / "etc/configured.conf").read_text() == "shipped 1.0\n"
    rolled_back(machine)
    judge.undone()


@pytest.mark.parametrize(
    ("fstype", "verb"),
    soak.cases([("ext4", "purge"), ("btrfs", "remove")], [("ext4", "remove"), ("xfs", "purge")]),
)
def test_a_service_is_removed_and_back(make_machine: MakeMachine, fstype: str, verb: str) -> None:
    machine = booted(make_machine(fstype))
    debs.add(
        machine.root,
        Package(
            "logging",
            files={
                "/usr/bin/logging": File(LOGGING),
                "/etc/logging.conf": "a = 1\n",
                "/var/log/logging/shipped": "of the package\n",
            },
            conffiles=("/etc/logging.conf",),
            services={"logging": "/usr/bin/logging"},
            scripts={"postrm": 'if [ "$1" = purge ]; then rm -rf /var/log/logging; fi'},
        ),
    )
    apt(machine, "install", "logging")
    logs = machine.root / "var/log/logging"
    (logs / "old").write_text("of last week\n")
    judge = Judge.of(machine)
    committed(machine, *APT, verb, "logging")
    assert machine.run("systemctl", "is-active", "logging").stdout == "inactive\n"
    assert logs.exists() == (verb == "remove")
    rolled_back(machine)
    judge.undone()
    assert machine.run("systemctl", "is-active", "logging").stdout == "active\n"
    assert (logs / "old").read_text() == "of last week\n"
    assert (logs / "current").read_text() == "started\nstarted\n"
    tripped(machine, *APT, verb, "logging")
    judge.undone()
    assert (logs / "current").read_text().splitlines() == ["started"] * 3


def test_a_hold_stays(ext4_machine: Machine) -> None:
    machine = ext4_machine
    debs.add(machine.root, configured("1.0"))
    apt(machine, "install", "configured")
    assert machine.run("apt-mark", "hold", "configured").returncode == 0
    debs.add(machine.root, configured("2.0"), Package("other"))
    judge = Judge.of(machine)
    committed(machine, *APT, "install", "other")
    assert facts(machine).held == ["configured"]
    rolled_back(machine)
    judge.undone()
    tripped(machine, "sh", "-c", f"apt-mark unhold configured; {' '.join(APT)} install configured")
    judge.undone()
    assert facts(machine).held == ["configured"]


def test_users_and_ports_come_and_go(machine: Machine) -> None:
    create = "useradd --system --user-group --home-dir /var/lib/served --create-home served"
    install = "install -d -o served -g served -m 750 /var/lib/served/own; echo mine >/var/lib/served/own/file"
    debs.add(
        machine.root, Package("served", services={"served": SERVER}, scripts={"postinst": f"{create}\n{install}"})
    )
    judge = Judge.of(machine)
    committed(machine, *APT, "install", "served")
    installed = facts(machine)
    assert "served:" in installed.users
    assert "served:" in installed.groups
    rolled_back(machine)
    judge.undone()
    assert not fetched(machine, retries=0)
    rolled_back(machine, "--redo")
    assert fetched(machine)
    assert installed.differences(facts(machine)) == {}
    packages_are_sound(machine)
    rolled_back(machine)
    judge.undone()
    tripped(machine, *APT, "install", "served")
    judge.undone()


def fetched(machine: Machine, retries: int = 4) -> bool:
    words = ("-sf", "-o", "/dev/null", "--retry", str(retries), "--retry-connrefused")
    return machine.run("curl", *words, "http://127.0.0.1:8080/").returncode == 0


def test_a_log_that_grows_meanwhile(ext4_machine: Machine) -> None:
    """What a service that the run does not touch writes into its log is there afterwards."""
    machine = ext4_machine
    debs.add(machine.root, Package("fails", scripts={"postinst": "sleep 0.5; exit 1"}))
    # One process only, always the same: a shell would have a child now and then.
    loop = "$| = 1; while (1) { print qq(line\\n); select undef, undef, undef, 0.05 }"
    (machine.root / "etc/others").write_text(loop)
    unit = "[Service]\nExecStart=perl /etc/others\nStandardOutput=append:/var/log/others\n"
    (machine.root / "etc/systemd/system/others.service").write_text(unit)
    assert machine.run("systemctl", "start", "others").returncode == 0
    judge = Judge.of(machine)
    before = (machine.root / "var/log/others").read_text()
    result = machine.snapbreaker("run", "--", *APT, "install", "fails")
    assert result.returncode == 1, result.stderr
    judge.undone()
    now = (machine.root / "var/log/others").read_text()
    assert now.startswith(before)
    assert len(now) >= len(before) + 5 * len("line\n")
