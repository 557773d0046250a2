"""Tables of the system's state, what differs between two, and what of it counts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from snapbreaker.linux.process import boot_id
from snapbreaker.linux.systemd import Unit
from snapbreaker.monitor.process_tree import MARKER
from snapbreaker.system import runtime_units, sockets, strays, units
from snapbreaker.system.owners import is_session, our_units, unit_in
from snapbreaker.system.state import AFTER, BEFORE, PACKAGES, SOCKETS, UNITS, USERS, SystemState, compare
from snapbreaker.system.target import Target


def state(**tables: dict[str, str]) -> SystemState:
    names = {"packages": PACKAGES, "units": UNITS, "sockets": SOCKETS, "users": USERS}
    return SystemState(boot_id(), 1.0, {names[name]: table for name, table in tables.items()})


def test_what_differs_in_words() -> None:
    old = state(packages={"a": "1 installed", "b": "1 installed"}, units={"x.service": "active"})
    new = state(packages={"a": "2 installed", "c": "1 installed"}, units={})
    assert [(one.table, one.name, one.text()) for one in compare(old, new)] == [
        (PACKAGES, "a", "2 installed instead of 1 installed"),
        (PACKAGES, "b", "is gone, was 1 installed"),
        (PACKAGES, "c", "1 installed, was not there"),
        (UNITS, "x.service", "is gone, was active"),
    ]
    assert compare(old, old) == []


def test_a_port_counts_not_who_has_it() -> None:
    old = state(sockets={"tcp 0.0.0.0:80": "apache2.service", "tcp 0.0.0.0:22": "ssh.service"})
    new = state(sockets={"tcp 0.0.0.0:80": "nginx.service", "tcp 0.0.0.0:25": "exim4.service"})
    assert [one.name for one in compare(old, new)] == ["tcp 0.0.0.0:22", "tcp 0.0.0.0:25"]


def test_state_survives_the_disk(tmp_path: Path) -> None:
    before = state(users={"b\udcffb": "1:1::/:/bin/sh"})
    before.save(tmp_path / "state.json")
    assert SystemState.load(tmp_path / "state.json") == before
    assert before.of_this_boot
    assert not SystemState("another", 1.0).of_this_boot


def test_target_of_a_committed_run_is_what_it_changed(tmp_path: Path) -> None:
    assert Target.of(tmp_path, undo=False) is None
    state(units={"a.service": "active", "b.service": "active"}).save(tmp_path / BEFORE)
    state(units={"b.service": "active", "c.service": "active"}).save(tmp_path / AFTER)
    now = state(units={"b.service": "failed", "c.service": "active", "d.service": "active"})
    undo, whole, again = (
        Target.of(tmp_path, True),
        Target.of(tmp_path, False),
        Target.of(tmp_path, True, again=True),
    )
    assert undo
    assert whole
    assert again
    assert [one.name for one in undo.differences(now)] == ["a.service", "c.service"]
    assert [one.name for one in whole.differences(now)] == ["a.service", "b.service", "c.service", "d.service"]
    assert [one.name for one in again.differences(now)] == []


def test_after_another_boot_only_what_lies_on_disk_is_compared(tmp_path: Path) -> None:
    old = SystemState("another boot", 1.0, {UNITS: {"a.service": "active"}, PACKAGES: {"p": "1 installed"}})
    old.save(tmp_path / BEFORE)
    target = Target.of(tmp_path, False)
    assert target
    assert [one.name for one in target.differences(state(units={}, packages={}))] == ["p"]


def unit(name: str, active: str = "active") -> Unit:
    return Unit(name, "loaded", active, "running", "/")


def test_units_that_count() -> None:
    found = {
        one.name: one
        for one in (
            unit("nginx.service"),
            unit("broken.service", "failed"),
            unit("coming.service", "activating"),
            unit("down.service", "inactive"),
            unit("a.timer"),
            unit("multi-user.target"),
            unit("user@1000.service"),
            unit("session-4.scope"),
            unit("ssh.socket"),
            unit("ssh@1-10.0.0.1:22-10.0.0.2:4711.service"),
            unit("worker@1.service"),
        )
    }
    assert units.states(found) == {
        "nginx.service": "active",
        "broken.service": "failed",
        "coming.service": "activating",
        "a.timer": "active",
        "ssh.socket": "active",
        "worker@1.service": "active",
    }
    stoppable = [name for name in (*found, "dbus.service", "getty@tty1.service") if units.may_be_stopped(name)]
    assert "dbus.service" not in stoppable
    assert "getty@tty1.service" not in stoppable
    assert "user@1000.service" not in stoppable
    assert "nginx.service" in stoppable


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ("/system.slice/nginx.service", "nginx.service"),
        ("/system.slice/system-worker.slice/worker@1.service/inner", "worker@1.service"),
        ("/user.slice/user-0.slice/session-c1.scope/snapbreaker-x", "session-c1.scope"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service", "user@1000.service"),
        ("/init.scope", "init.scope"),
        ("/system.slice", ""),
        ("/lxc.payload.c1/system.slice/nginx.service", ""),
        ("/machine.slice/machine-c1.scope/system.slice/nginx.service", "machine-c1.scope"),
        ("/system.slice/docker-4711.scope", "docker-4711.scope"),
        ("/system.slice/docker.service/nested/cron.service", "docker.service"),
        ("/", ""),
        ("", ""),
    ],
)
def test_unit_of_a_cgroup(cgroup: str, expected: str) -> None:
    assert unit_in(cgroup) == expected


def test_logins_are_told_from_services() -> None:
    assert is_session("session-4.scope")
    assert is_session("user@0.service")
    assert is_session("user-runtime-dir@0.service")
    assert not is_session("nginx.service")
    assert not is_session("init.scope")
    assert not is_session("docker-4711.scope")
    assert not is_session("session-cleanup.service")
    assert "" not in our_units()


def test_ports_that_are_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_INET6) as six:
        port = server.getsockname()[1]
        assert f"tcp 127.0.0.1:{port}" in sockets.listening()
        six.bind(("::1", 0))
        assert f"tcp [::1]:{six.getsockname()[1]}" not in sockets.listening()
        six.listen()
        assert f"tcp [::1]:{six.getsockname()[1]}" in sockets.listening()
    assert f"tcp 127.0.0.1:{port}" not in sockets.listening()


def test_of_udp_the_ports_that_were_asked_for() -> None:
    low = next(iter(sockets.chosen_by_the_kernel()))
    with socket.socket(type=socket.SOCK_DGRAM) as asked, socket.socket(type=socket.SOCK_DGRAM) as given:
        asked.bind(("127.0.0.1", low - 1))
        given.bind(("127.0.0.1", 0))
        found = sockets.listening()
        assert f"udp 127.0.0.1:{low - 1}" in found
        assert f"udp 127.0.0.1:{given.getsockname()[1]}" not in found


def test_runtime_unit_files_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = tmp_path / "system"
    (top / "a.service.d").mkdir(parents=True)
    (top / "a.service.d/50.conf").write_bytes(b"[Service]\nNice=1\n\xff")
    (top / "masked.service").symlink_to("/dev/null")
    monkeypatch.setattr(runtime_units, "DIRECTORIES", (str(top), str(tmp_path / "system.control")))
    before = runtime_units.read()
    assert not runtime_units.put_back(before)
    (top / "masked.service").unlink()
    (top / "a.service.d/50.conf").unlink()
    (top / "a.service.d").rmdir()
    (top / "new.target.wants").mkdir()
    (top / "new.target.wants/b.service").symlink_to("/x")
    (tmp_path / "system.control").mkdir()
    (tmp_path / "system.control/c").write_text("x")
    assert runtime_units.put_back(before)
    assert runtime_units.read() == before
    assert (top / "a.service.d/50.conf").read_bytes() == b"[Service]\nNice=1\n\xff"


@pytest.mark.real_commands
def test_strays_are_found_by_environment_and_by_script(tmp_path: Path) -> None:
    """A shell that reads a job of at(1) has no marker itself: the job's first lines set it, with escapes."""
    run_id = f"000001-20260101T000000-{os.getpid()}.{tmp_path.stat().st_ino}"
    job = tmp_path / "job"
    escaped = run_id.replace("-", "\\-")
    job.write_text(f"#!/bin/sh\n{MARKER}={escaped}; export {MARKER}\nwhile :; do sleep 0.05; done\n")
    with job.open() as script:
        shell = subprocess.Popen(["/bin/sh"], stdin=script, start_new_session=True)
    marked = subprocess.Popen(["sleep", "60"], env={MARKER: run_id}, start_new_session=True)
    other = subprocess.Popen(["sleep", "60"], env={MARKER: "another"}, start_new_session=True)
    try:
        time.sleep(0.2)
        pids = {stray.process.pid for stray in strays.find(run_id)}
        assert {shell.pid, marked.pid} <= pids
        assert not {other.pid, os.getpid(), os.getppid()} & pids
        ended = strays.end(run_id, gently=False)
        assert len(ended) >= 2
        assert strays.find(run_id) == []
        assert other.poll() is None
    finally:
        for process in (shell, marked, other):
            process.kill()
            process.wait()


@pytest.mark.real_commands
def test_a_stray_may_end_by_itself(tmp_path: Path) -> None:
    run_id = f"gentle-{os.getpid()}.{tmp_path.stat().st_ino}"
    code = "import signal,sys,time; signal.signal(15, lambda *_: (open(sys.argv[1],'w').close(), sys.exit()));"
    code += "print(flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "said"], env={MARKER: run_id}, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout
        assert process.stdout.readline()
        # It is our child: a zombie until it is reaped, which is as good as gone.
        strays.end(run_id, gently=True)
        assert (tmp_path / "said").exists()
    finally:
        process.kill()
        process.communicate()
