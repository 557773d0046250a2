"""What else is at work on the machine: jobs, ports, locks, a bus that hangs, other people's logins."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from snapbreaker.linux import locks, logind
from snapbreaker.linux.process import Process
from snapbreaker.system import preflight as system_preflight
from snapbreaker.system import strays
from snapbreaker.system.owners import unit_in
from snapbreaker.system.parts import Parts
from snapbreaker.system.state import SOCKETS, UNITS, capture
from tests.unit.fake_manager import FakeManager

JOBS = [
    (("backup.service", "start", "running"), False),
    (("multi-user.target", "start", "waiting"), False),
    (("session-4.scope", "start", "waiting"), False),
    (("after-backup.service", "start", "waiting"), True),
    (("slow.service", "stop", "running"), True),
    (("slow.service", "restart", "running"), True),
    (("reboot.target", "stop", "waiting"), True),
]


@pytest.mark.parametrize(("job", "busy"), JOBS, ids=[" ".join(job) for job, _ in JOBS])
def test_jobs_that_keep_from_a_run(job: tuple[str, str, str], busy: bool) -> None:
    manager = FakeManager()
    manager.states = {7: job}
    assert bool(system_preflight._jobs(manager)) == busy  # type: ignore[arg-type]


def test_ports_are_recorded_without_systemd() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        tables = capture(Parts(accounts=True, services=False)).tables
        assert SOCKETS not in tables
        if os.path.exists("/var/lib/dpkg/status"):
            tables = capture(Parts(packages=True)).tables
            assert f"tcp 127.0.0.1:{server.getsockname()[1]}" in tables[SOCKETS]
            assert UNITS not in tables


def test_a_hung_message_bus_does_not_hang_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has accepted us, and answers nothing more."""
    monkeypatch.setattr(logind, "BUS", str(tmp_path / "bus"))
    monkeypatch.setattr(logind, "_TIMEOUT", 0.3)
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(logind.BUS)
        bus.listen()

        def accept() -> None:
            connection, _ = bus.accept()
            with connection:
                for answer in (b"OK 0123\r\n", b"AGREE_UNIX_FD\r\n"):
                    while b"\r\n" not in connection.recv(1024):
                        pass
                    connection.sendall(answer)
                while connection.recv(1024):
                    pass

        threading.Thread(target=accept, daemon=True).start()
        started = time.monotonic()
        assert logind.open_session("test") is False
        assert 0.2 < time.monotonic() - started < 2


def test_a_lock_is_seen_and_not_taken(tmp_path: Path) -> None:
    """Any part of the file, read or write; our own locks, which are none of another process, do not count."""
    path = tmp_path / "lock"
    path.touch()
    fd = os.open(path, os.O_RDWR)
    holding, told = os.pipe()
    child = os.fork()
    if child == 0:
        fcntl.lockf(fd, fcntl.LOCK_SH, 1, 100)
        os.write(told, b"+")
        signal.pause()
        os._exit(0)
    try:
        assert os.read(holding, 1) == b"+"
        look = os.open(path, os.O_RDONLY)
        assert locks.is_locked(look)
        fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert not locks.is_locked(look)
    for each in (fd, holding, told, look):
        os.close(each)


LOGINS = {
    10: ("/user.slice/user-1000.slice/session-1.scope", False),  # somebody's shell
    11: ("/user.slice/user-1000.slice/session-1.scope", True),
    20: ("/user.slice/user-33.slice/session-2.scope", True),  # su(1), which the run had started
    21: ("/user.slice/user-33.slice/session-2.scope", True),
    30: ("/system.slice/dbus.service", True),
    40: ("/user.slice/user-1000.slice/user@1000.service/init.scope", False),
    41: ("/user.slice/user-1000.slice/user@1000.service/app.slice/x.service", True),
    50: ("/system.slice/atd.service", True),
    60: ("/user.slice/user-0.slice/session-3.scope", False),  # another login of who asks
    61: ("/user.slice/user-0.slice/session-3.scope", True),
    70: ("/user.slice/user-0.slice/session-4.scope", True),  # ours
}


def test_whose_a_process_with_the_marker_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def cgroup(pid: int) -> str:
        return LOGINS.get(pid, ("/user.slice/user-0.slice/session-4.scope", False))[0]

    seen = {pid: Process(pid, "x", "S", 1, pid, pid, 1, pid) for pid in LOGINS}
    monkeypatch.setattr(strays, "cgroup_of", cgroup)
    monkeypatch.setattr(strays, "unit_of", lambda pid: unit_in(cgroup(pid)))
    monkeypatch.setattr(strays, "our_units", lambda: {"session-4.scope"})
    monkeypatch.setattr(strays, "has_environment", lambda pid, _: LOGINS[pid][1])
    marked = [pid for pid, (_, has) in LOGINS.items() if has]
    assert [pid for pid in marked if not strays._is_others(pid, seen, b"")] == [20, 21, 50, 61, 70]
