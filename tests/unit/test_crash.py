"""What is left after a snapbreaker that died, or that systemd did not answer, and who puts it in order."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from snapbreaker import commit, lifeboat
from snapbreaker.checkpoint.discard import discard
from snapbreaker.checkpoint.record import Meta, Record
from snapbreaker.checkpoint.states import State
from snapbreaker.checkpoint.store import Store
from snapbreaker.errors import CheckpointError
from snapbreaker.exits import Exit
from snapbreaker.linux import locks, logind
from snapbreaker.linux.durable import write_json
from snapbreaker.linux.process import Process, boot_id
from snapbreaker.linux.systemd import SystemdError, Unit
from snapbreaker.preflight import preflight
from snapbreaker.recover import recover
from snapbreaker.system import boot, boot_files, holds, strays
from snapbreaker.system import preflight as system_preflight
from snapbreaker.system.owners import unit_in
from snapbreaker.system.parts import Parts
from snapbreaker.system.state import SOCKETS, UNITS, SystemState, capture
from tests.unit.test_checkpoint_store import TO_COMMITTED, TO_ROLLED_BACK, settled

TIMER = "apt-daily.timer"
TO_FAILED = (*TO_ROLLED_BACK[:-1], State.FAILED)


class FakeManager:
    """systemd with one timer; ``refuses`` to start it."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses, self.started = refuses, [""][:0]
        self.system, self.isolated = "running", [""][:0]
        self.states: dict[int, tuple[str, str, str]] = {}

    def connect(self) -> FakeManager:
        return self

    def __enter__(self) -> FakeManager:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def units(self) -> dict[str, Unit]:
        return {TIMER: Unit(TIMER, "loaded", "active" if self.started else "inactive", "dead", "/")}

    def enablement(self, _: str) -> str:
        return "enabled"

    def start(self, units: list[str]) -> dict[str, str]:
        if self.refuses:
            return dict.fromkeys(units, self.refuses)
        self.started += units
        return {}

    stop = restart = start

    def settle(self, *_: Any) -> bool:
        return True

    def reload(self) -> None:
        pass

    def state(self) -> str:
        return self.system

    def isolate(self, target: str) -> None:
        self.isolated.append(target)

    def job_states(self) -> dict[int, tuple[str, str, str]]:
        return self.states


class Silent:
    def failed(self, error: Exception) -> None:
        self.error = error


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> FakeManager:
    made = FakeManager()
    monkeypatch.setattr(holds, "Manager", made)
    return made


def held(store: Store, states: tuple[State, ...]) -> Record:
    record = settled(store, *states)
    write_json(str(record.path / "held.json"), {"boot": boot_id(), "units": {TIMER: "enabled"}})
    return record


@pytest.mark.parametrize("states", [TO_COMMITTED, TO_ROLLED_BACK, TO_FAILED], ids=["committed", "back", "failed"])
@pytest.mark.parametrize("by", ["recover", "preflight"])
def test_timers_are_put_back_for_whatever_has_come_to_rest(
    tmp_path: Path, manager: FakeManager, states: tuple[State, ...], by: str
) -> None:
    store = Store(tmp_path / "store")
    record = held(store, states)
    if by == "recover":
        assert recover(store, Silent()) == Exit.OK  # type: ignore[arg-type]
    else:
        preflight(store)
    assert manager.started == [TIMER]
    assert not holds.held(record.path)


def test_timers_that_cannot_be_put_back_stay_noted(tmp_path: Path, manager: FakeManager) -> None:
    store = Store(tmp_path / "store")
    record = held(store, TO_ROLLED_BACK)
    manager.refuses = "transaction is destructive"
    preflight(store)
    told = Silent()
    assert recover(store, told) == Exit.MANUAL  # type: ignore[arg-type]
    assert TIMER in str(told.error)
    with pytest.raises(CheckpointError, match="are still stopped"):
        discard(record)
    assert holds.held(record.path)
    manager.refuses = ""
    discard(record)
    assert manager.started == [TIMER]
    assert not record.path.exists()


def test_what_systemd_refuses_keeps_no_checkpoint_that_is_given_up(tmp_path: Path, manager: FakeManager) -> None:
    record = held(Store(tmp_path / "store"), TO_COMMITTED)
    manager.refuses = "no"
    discard(record, leave_unreachable=True)
    assert not record.path.exists()


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


@pytest.mark.parametrize(
    ("state", "ours", "isolated"),
    [
        ("starting", {boot_files.NAME}, True),
        ("starting", {"session-4.scope"}, False),
        ("running", {boot_files.NAME}, False),
    ],
)
def test_only_our_unit_makes_a_boot_anew(
    monkeypatch: pytest.MonkeyPatch, state: str, ours: set[str], isolated: bool
) -> None:
    manager = FakeManager()
    manager.system = state
    monkeypatch.setattr(boot, "our_units", lambda: ours)
    monkeypatch.setattr(boot, "stale", lambda *_: {})
    boot.Boot(manager).follow({"/etc/x"})  # type: ignore[arg-type]
    assert bool(manager.isolated) == isolated


def test_a_state_that_systemd_does_not_tell_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [SystemdError("no"), SystemState("b", 1.0)]

    def asked(_: Parts) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(commit, "capture", asked)
    assert commit._captured(Parts(services=True)) == SystemState("b", 1.0)
    answers += [SystemdError("no"), SystemdError("still not")]
    with pytest.raises(SystemdError, match="still not"):
        commit._captured(Parts(services=True))


def test_a_commit_says_that_systemd_did_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = settled(Store(tmp_path / "store"), *TO_COMMITTED[:-1])
    record.save_meta(
        Meta(record.id, record.sequence, "run", 0.0, ["true"], "/", ["/"], [], parts={"services": True})
    )

    def silent(_: Parts) -> SystemState:
        raise SystemdError("systemd did not answer ListUnits within 25 s")

    monkeypatch.setattr(commit, "capture", silent)
    issue = commit.commit(record)
    assert not isinstance(issue, commit.Committed)
    assert issue.reason.startswith(
        "what the run made of packages and units could not be recorded: systemd did not"
    )
    assert record.state is State.CHECKING


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


def test_a_lifeboat_with_a_hole_is_made_anew(tmp_path: Path) -> None:
    boat = lifeboat.prepare(tmp_path)
    made = boat.stat().st_ino
    assert lifeboat.prepare(tmp_path).stat().st_ino == made
    size = (boat / "lib/python").stat().st_size
    (boat / "lib/python").write_bytes(b"")
    lifeboat.prepare(tmp_path)
    assert (boat / "lib/python").stat().st_size == size
    (boat / "python/snapbreaker/lifeboat.py").unlink()
    lifeboat.prepare(tmp_path)
    assert (boat / "python/snapbreaker/lifeboat.py").exists()
    (boat / lifeboat.RECOVER).write_bytes(b"")
    lifeboat.prepare(tmp_path)
    assert (boat / lifeboat.RECOVER).stat().st_size


def test_a_lifeboat_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []

    def sync(path: str) -> None:
        synced.append(path)
        assert not (tmp_path / "lifeboat").exists()

    monkeypatch.setattr(lifeboat, "sync_filesystem", sync)
    lifeboat.prepare(tmp_path)
    assert len(synced) == 1


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


@pytest.mark.real_commands
def test_the_hook_is_a_script_that_a_shell_understands(tmp_path: Path) -> None:
    path = tmp_path / "hook"
    path.write_text(boot_files.hook(Path("/var/lib/snapbreaker")))
    for shell in ("sh", "busybox"):
        if program := shutil.which(shell):
            words = [program, "sh"] if shell == "busybox" else [program]
            subprocess.run([*words, "-n", str(path)], check=True)
    assert subprocess.run(["sh", str(path), "prereqs"], check=True).returncode == 0


def test_a_path_that_a_unit_cannot_name_is_refused() -> None:
    assert "--store /srv/s recover" in boot_files.unit(Path("/srv/s"), "/usr/bin/snapbreaker")
    for store in ("/srv/a b", "/srv/50%"):
        with pytest.raises(CheckpointError, match="cannot be named"):
            boot_files.unit(Path(store), "/usr/bin/snapbreaker")
