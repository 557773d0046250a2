"""The lab's machines: they boot, run commands exactly, forget nothing over a reboot, and stay as they are."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests import comparer
from tests.lab import debs
from tests.lab.errors import LabError
from tests.lab.machine import Machine
from tests.system.conftest import MakeMachine

SHOW_ARGUMENTS = r"import os, sys; os.write(1, b'\0'.join(map(os.fsencode, sys.argv[1:])))"
FETCH = "import urllib.request as r; print(r.urlopen('http://localhost/').status)"
NASTY = ("", " ", "a b", "it's", '"', "$HOME", "`id`", "\\", "new\nline\n", "-n", "--", "*", b"\xff\xfe", "é", "#")


def test_root_is_the_filesystem_and_pid_1_is_systemd(machine: Machine) -> None:
    assert machine.run("cat", "/proc/1/comm").stdout == "systemd\n"
    assert machine.run("systemctl", "is-system-running").stdout == "running\n"
    lines = machine.run("cat", "/proc/self/mountinfo").stdout.splitlines()
    root = next(fields for fields in map(str.split, lines) if fields[4] == "/")
    inside = "/@" if machine.fstype == "btrfs" else "/"
    assert (root[3], root[root.index("-") + 1], root[root.index("-") + 2]) == (
        inside,
        machine.fstype,
        machine.disk.device,
    )
    others = [fields for fields in map(str.split, lines) if machine.disk.device in fields]
    assert others == [root]
    assert machine.run("test", "-b", machine.disk.device).returncode == 0


@pytest.mark.parametrize("session", [True, False])
def test_commands_get_their_arguments_and_give_their_status(ext4_machine: Machine, session: bool) -> None:
    for status in (0, 1, 77, 255):
        assert ext4_machine.run("sh", "-c", f"exit {status}", session=session).returncode == status
    assert ext4_machine.run("/no/such/program", session=session).returncode == 127
    shown = ext4_machine.run("python3", "-c", SHOW_ARGUMENTS, *NASTY, session=session)
    assert os.fsencode(shown.stdout).split(b"\0") == [os.fsencode(word) for word in NASTY]
    script = 'cat; echo out; echo err >&2; echo "$NAME"; pwd'
    said = ext4_machine.run("sh", "-c", script, input=b"in\xff\n", env={"NAME": "a 'b'\n$c"}, session=session)
    assert os.fsencode(said.stdout) == b"in\xff\nout\na 'b'\n$c\n" + (b"/root\n" if session else b"/\n")
    assert said.stderr == "err\n"


def test_each_boot_is_one_of_its_own(ext4_machine: Machine) -> None:
    def boot_id() -> str:
        return ext4_machine.run("cat", "/proc/sys/kernel/random/boot_id").stdout

    first = boot_id()
    assert ext4_machine.run("journalctl", "-q", "--list-boots").stdout.count("\n") == 1
    ext4_machine.reboot()
    assert boot_id() not in (first, "")
    assert ext4_machine.run("journalctl", "-q", "--list-boots").stdout.count("\n") == 2
    refused = ext4_machine.run("sh", "-c", "echo 1 >/proc/sys/vm/drop_caches")
    assert "Read-only file system" in refused.stderr


def test_a_session_is_one_of_logind(ext4_machine: Machine) -> None:
    def cgroup(session: bool) -> str:
        lines = ext4_machine.run("cat", "/proc/self/cgroup", session=session).stdout.splitlines()
        return next(line for line in lines if line.startswith("0::"))

    assert cgroup(session=True).startswith("0::/user.slice/user-0.slice/session-")
    assert cgroup(session=True).endswith(".scope")
    assert cgroup(session=False) == "0::/lab-exec"
    show = 'loginctl show-session "$XDG_SESSION_ID" -P Name'
    assert ext4_machine.run("sh", "-c", show).stdout == "root\n"
    assert ext4_machine.run("sh", "-c", 'echo "$XDG_SESSION_ID"', session=False).stdout == "\n"


@pytest.mark.parametrize("session", [True, False])
def test_signals_reach_the_command(ext4_machine: Machine, session: bool) -> None:
    sleeper = ext4_machine.start("sleep", "60", session=session)
    ext4_machine.signal(sleeper, signal.SIGTERM)
    assert sleeper.wait(10) == (128 + signal.SIGTERM if session else -signal.SIGTERM)
    with pytest.raises(AssertionError, match="still ran after"):
        ext4_machine.run("sh", "-c", "sleep 61; true", timeout=1, session=session)
    assert ext4_machine.run("pgrep", "sleep").stdout == ""


def test_a_stopped_command_does_not_hold_the_machine(ext4_machine: Machine) -> None:
    sleeper = ext4_machine.start("sleep", "60")
    ext4_machine.signal(sleeper, signal.SIGSTOP)
    os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED | os.WNOWAIT)  # nsenter(1), outside of the machine, stops with it
    ext4_machine.crash()
    assert sleeper.wait(10) == -signal.SIGKILL


def test_installed_services_really_start(ext4_machine: Machine) -> None:
    installed = ext4_machine.run("apt-get", "-qq", "-y", "install", "nginx-light")
    assert installed.returncode == 0, installed.stderr
    assert ext4_machine.run("systemctl", "is-active", "nginx").stdout == "active\n"
    assert ext4_machine.run("python3", "-c", FETCH).stdout == "200\n"
    assert ext4_machine.reboot() == "running"
    assert ext4_machine.run("python3", "-c", FETCH).stdout == "200\n"


def test_built_packages_bring_services(ext4_machine: Machine) -> None:
    debs.add(
        ext4_machine.root,
        debs.Package(
            "daemon",
            architecture="amd64",
            depends=("python3", "daemon-data (>= 2)"),
            files={
                "/usr/bin/daemon": debs.File("#!/bin/sh\nexec sleep infinity\n"),
                "/usr/bin/daemon-secret": debs.File(b"\xff", 0o4750),
                "/etc/daemon.conf": debs.Link("/usr/share/daemon.conf"),
            },
            services={"daemon": "/usr/bin/daemon"},
        ),
        debs.Package("daemon-data", version="2.0", files={"/usr/share/daemon.conf": "a = 1\n"}),
    )
    installed = ext4_machine.run("apt-get", "-qq", "-y", "install", "daemon")
    assert installed.returncode == 0, installed.stderr
    assert ext4_machine.run("systemctl", "is-active", "daemon").stdout == "active\n"
    assert ext4_machine.run("systemctl", "is-enabled", "daemon").stdout == "enabled\n"
    assert ext4_machine.run("cat", "/etc/daemon.conf").stdout == "a = 1\n"
    assert (ext4_machine.root / "usr/bin/daemon-secret").stat().st_mode & 0o7777 == 0o4750
    assert ext4_machine.run("apt-get", "-qq", "-y", "purge", "daemon").returncode == 0
    assert ext4_machine.run("systemctl", "is-active", "daemon").stdout == "inactive\n"
    assert not ext4_machine.run("sh", "-c", "ls -d /etc/systemd/system/*/daemon*").stdout


def test_a_quiet_machine_stays_as_it_is(machine: Machine) -> None:
    before = machine.snapshot()
    assert machine.run("true").returncode == 0
    assert machine.reboot() == "running"
    assert machine.run("true", session=False).returncode == 0
    machine.stop()
    assert comparer.differences(before, machine.snapshot()) == []


def test_a_crash_keeps_files_and_no_process(machine: Machine) -> None:
    assert machine.run("sh", "-c", "echo kept >/srv/file").returncode == 0
    sleeper = machine.start("sleep", "60")
    outside = machine.pid(sleeper)
    began = time.monotonic()
    machine.crash()
    assert time.monotonic() - began < 5
    assert not Path(f"/proc/{outside}").exists()
    assert (machine.root / "srv/file").read_text() == "kept\n"
    with pytest.raises(LabError, match="not booted"):
        machine.run("true")
    assert machine.boot() == "running"
    assert machine.run("cat", "/srv/file").stdout == "kept\n"


def test_a_machine_may_end_by_itself(ext4_machine: Machine) -> None:
    waiting = ext4_machine.start("sh", "-c", "echo said; exec sleep 60")
    assert waiting.stdout
    assert waiting.stdout.readline() == b"said\n"
    ext4_machine.run("systemctl", "reboot", session=False)
    waiting.wait(30)
    ext4_machine.stop()
    assert not ext4_machine.running
    assert ext4_machine.boot() == "running"


def test_the_bundle_works_there(ext4_machine: Machine) -> None:
    before = ext4_machine.snapshot()
    change = "echo new >/etc/new; rm /etc/hosts; exit 3"
    result = ext4_machine.snapbreaker("run", "--scope", "/etc", "--", "sh", "-c", change)
    assert result.returncode == 1, result.stderr
    assert comparer.differences(before, ext4_machine.snapshot()) == []


def test_two_machines_at_once_see_nothing_of_each_other(make_machine: MakeMachine) -> None:
    one, two = make_machine("btrfs"), make_machine("btrfs")
    assert (one.boot(), two.boot()) == ("running", "running")
    serve = "import socket, time; s = socket.create_server(('', 80)); print('up', flush=True); time.sleep(60)"
    for machine in (one, two):
        server = machine.start("python3", "-c", serve)
        assert server.stdout
        assert server.stdout.readline() == b"up\n"
        assert machine.run("pgrep", "-xc", "python3").stdout == "1\n"
    one.run("touch", "/srv/one")
    assert two.run("ls", "/srv").stdout == ""
    one.crash()
    assert two.run("systemctl", "is-system-running").stdout == "running\n"
