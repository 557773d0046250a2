"""What is left after a snapbreaker that died, or that systemd did not answer, and who puts it in order."""

from __future__ import annotations

import shutil
import subprocess
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
from snapbreaker.linux.durable import write_json
from snapbreaker.linux.process import boot_id
from snapbreaker.linux.systemd import SystemdError
from snapbreaker.preflight import preflight
from snapbreaker.recover import recover
from snapbreaker.system import boot, boot_files, holds, service
from snapbreaker.system.parts import Parts
from snapbreaker.system.state import SystemState
from tests.unit.fake_manager import TIMER, FakeManager
from tests.unit.test_checkpoint_store import TO_COMMITTED, TO_ROLLED_BACK, settled

TO_FAILED = (*TO_ROLLED_BACK[:-1], State.FAILED)


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


@pytest.mark.real_commands
def test_the_hook_is_a_script_that_a_shell_understands(tmp_path: Path) -> None:
    path = tmp_path / "hook"
    path.write_text(service.hook(Path("/var/lib/snapbreaker")))
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
