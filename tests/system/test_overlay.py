"""Whole machines on whose root a command is tried first: packages, deploys, and who else is at work meanwhile."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab import loopfs
from tests.lab.machine import KEPT, Machine
from tests.system.conftest import MakeMachine, booted
from tests.system.facts import said
from tests.system.judge import INSTALL, Judge, packages_are_sound
from tests.system.scene import UNIT, put, report, script, until

OVERLAY = ("run", "--backend", "overlay")
# Steps up to a moment at which the test does something outside: /tmp is the machine's own.
WAIT = "touch /tmp/ready; while [ ! -e /tmp/go ]; do sleep 0.05; done"
LOCKER = """import fcntl, time
file = open({!r}, "r+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""
DEPLOY = f"""export DEBIAN_FRONTEND=noninteractive
apt-get install -y --no-install-recommends redis-server 2>&1
echo '10.1.2.3 database' >>/etc/hosts
rm /etc/issue
mv /etc/deluser.conf /etc/deluser.conf.old
chmod 600 /etc/login.defs
useradd --create-home deploy
cat >/etc/systemd/system/ours.service <<UNIT
{UNIT.format(command="sleep 1000", more="")}
UNIT
systemctl daemon-reload
systemctl enable --now ours.service 2>&1
systemctl mask systemd-ask-password-wall.path 2>&1
systemctl restart atd.service
(setsid sh -c 'while :; do date >>/srv/daemon; sleep 0.05; done' >/dev/null 2>&1 &)
sleep 0.5
echo 'ERROR: migration 42 failed'
while :; do date >>/srv/more; done
"""


def installed(machine: Machine, package: str) -> None:
    result = machine.snapbreaker(*OVERLAY, *INSTALL, package, timeout=180)
    assert result.returncode == 0, result.stdout + result.stderr
    packages_are_sound(machine)


def undone(machine: Machine, judge: Judge) -> None:
    back = machine.snapbreaker("rollback", "--last", "--yes", timeout=120)
    assert back.returncode == 0, back.stderr
    judge.undone()


@contextmanager
def at_work(machine: Machine, before: str) -> Iterator[subprocess.Popen[bytes]]:
    """A sandboxed command that has done ``before`` and waits for the end of the block."""
    process = machine.start("snapbreaker", *OVERLAY, "--idle", "0", "--", script(machine, f"{before}\n{WAIT}\n"))
    until(machine, "test -e /tmp/ready")
    yield process
    put(machine, "/tmp/go", "")


def ended(machine: Machine, process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, stderr = process.communicate(timeout=60)
    del machine.started[process]
    return process.returncode, stderr.decode()


@pytest.mark.parametrize("fstype", loopfs.FSTYPES)
def test_nginx_runs_after_commit_and_is_gone_after_rollback(make_machine: MakeMachine, fstype: str) -> None:
    machine = booted(make_machine(fstype))
    judge = Judge.of(machine)
    installed(machine, "nginx-light")
    assert said(machine, "systemctl", "is-active", "nginx") == "active\n"
    assert said(machine, "systemctl", "is-enabled", "nginx") == "enabled\n"
    assert "Welcome to nginx" in machine.run("curl", "-s", "http://127.0.0.1/").stdout
    undone(machine, judge)


def test_redis(ext4_machine: Machine) -> None:
    judge = Judge.of(ext4_machine)
    installed(ext4_machine, "redis-server")
    assert said(ext4_machine, "redis-cli", "ping") == "PONG\n"
    undone(ext4_machine, judge)


@pytest.mark.slow
def test_postgresql(ext4_machine: Machine) -> None:
    judge = Judge.of(ext4_machine)
    installed(ext4_machine, "postgresql")
    assert said(ext4_machine, "su", "postgres", "-c", "psql -Atc 'select 6 * 7'") == "42\n"
    back = ext4_machine.snapbreaker("rollback", "--last", "--yes", "--force", timeout=120)
    assert back.returncode == 0, back.stderr
    judge.undone()


def ctimes(machine: Machine) -> dict[tuple[int, str], int]:
    """Of all inodes of the root but its top, by directory and name; without what is kept."""
    kept = {os.path.join(machine.root, os.fsdecode(path)) for path in (*KEPT, b".snapbreaker")}
    found = {}
    for directory, names, files, fd in os.fwalk(machine.root):
        names[:] = [name for name in names if os.path.join(directory, name) not in kept]
        for name in names + files:
            if os.path.join(directory, name) not in kept:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                found[os.fstat(fd).st_ino, os.path.join(directory, name)] = status.st_ctime_ns
    return found


def test_a_failing_deploy_leaves_not_a_trace(ext4_machine: Machine) -> None:
    machine, path = ext4_machine, script(ext4_machine, DEPLOY)
    put(machine, "/var/lib/snapbreaker/made", "the store is, as by an earlier run")
    judge, before = Judge.of(machine), ctimes(machine)
    result = machine.snapbreaker(*OVERLAY, "--", path, session=False, timeout=120)
    assert result.returncode == 1, result.stdout + result.stderr
    assert report(machine)["issue"]["line"] == "ERROR: migration 42 failed"
    after = ctimes(machine)
    moved = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    assert moved == []
    judge.undone()


def test_a_file_that_the_machine_changed_meanwhile_is_a_conflict(ext4_machine: Machine) -> None:
    machine, hosts = ext4_machine, ext4_machine.root / "etc/hosts"
    original = hosts.read_text()
    with at_work(machine, "echo 10.0.0.1 ours >>/etc/hosts; echo new >/etc/ours") as process:
        (machine.root / "etc/theirs").write_text("a name beside it is none")
        hosts.write_text(f"{original}10.0.0.2 theirs\n")
    status, said = ended(machine, process)
    assert status == 1, said
    found = report(machine)
    assert found["issue"]["rule"] == "conflict"
    assert "/etc/hosts" in found["issue"]["reason"]
    assert "theirs" not in found["issue"]["reason"]
    assert hosts.read_text() == f"{original}10.0.0.2 theirs\n"
    assert not (machine.root / "etc/ours").exists()


def test_a_name_beside_it_is_no_conflict(ext4_machine: Machine) -> None:
    machine = ext4_machine
    with at_work(machine, "echo 10.0.0.1 ours >>/etc/hosts; echo new >/etc/ours") as process:
        (machine.root / "etc/theirs").write_text("theirs")
    status, said = ended(machine, process)
    assert status == 0, said
    assert (machine.root / "etc/ours").read_text() == "new\n"
    assert (machine.root / "etc/theirs").read_text() == "theirs"


def test_package_managers_of_the_machine_wait_or_fail(ext4_machine: Machine) -> None:
    machine = ext4_machine
    with at_work(machine, "echo >/etc/ours") as process:
        other = machine.run("dpkg", "--configure", "-a", session=False)
        assert other.returncode == 2
        assert "lock" in other.stderr
        other = machine.run("apt-get", "install", "-qqy", "redis-server", session=False)
        assert other.returncode == 100
        assert "lock" in other.stderr
    status, said = ended(machine, process)
    assert status == 0, said
    packages_are_sound(machine)


@pytest.mark.parametrize("path", ["/etc/.pwd.lock", "/var/lib/apt/lists/lock"])
def test_somebody_holds_a_lock(ext4_machine: Machine, path: str) -> None:
    machine = ext4_machine
    put(machine, path, "", 0o600)
    holder = machine.start("python3", "-c", LOCKER.format(path), session=False)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    result = machine.snapbreaker(*OVERLAY, "--", "true")
    assert result.returncode == 4, result.stderr
    assert path in result.stderr
    assert "(python3)" in result.stderr
    assert machine.snapbreaker("checkpoint", "list").stdout == ""


def test_a_unit_that_waits_for_the_accounts(ext4_machine: Machine) -> None:
    """systemd takes the lock of /etc/passwd to find a user id that nobody has: systemd.exec(5), DynamicUser=."""
    machine = ext4_machine
    text = UNIT.format(command="/bin/sleep 1000", more="DynamicUser=yes\nTimeoutStartSec=20")
    lines = (
        f"cat >/etc/systemd/system/ours.service <<'E'\n{text}E",
        "systemctl daemon-reload",
        "systemctl start ours",
    )
    path = script(machine, "\n".join((*lines, "touch /etc/.pwd.lock")) + "\n")
    check = ("--check", "systemctl is-active ours && useradd another")
    result = machine.snapbreaker(*OVERLAY, *check, "--", path, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    assert machine.run("id", "another", session=False).returncode == 0


def test_a_unit_that_fails_after_commit_takes_all_of_it_back(ext4_machine: Machine) -> None:
    machine = ext4_machine
    text = UNIT.format(command="/bin/sh -c 'echo begun >>/srv/made/by-the-unit; exit 1'", more="")
    path = script(
        machine,
        f"mkdir /srv/made\ncat >/etc/systemd/system/ours.service <<'E'\n{text}E\n"
        "systemctl daemon-reload\nsystemctl enable --now ours 2>&1\n",
    )
    judge = Judge.of(machine)
    result = machine.snapbreaker(*OVERLAY, "--", path, timeout=120)
    assert result.returncode == 1, result.stdout + result.stderr
    issue = report(machine)["issue"]
    assert issue["rule"] == "services"
    assert "ours.service" in issue["reason"]
    judge.undone()
