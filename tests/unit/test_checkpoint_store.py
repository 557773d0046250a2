"""The store, records and their states, without any volume."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapbreaker.backend import Stored, Volume
from snapbreaker.checkpoint.owner import Owner
from snapbreaker.checkpoint.record import Meta, Record, VolumeRecord
from snapbreaker.checkpoint.retention import Retention
from snapbreaker.checkpoint.states import EDGES, SETTLED, IllegalTransition, State, check_edge
from snapbreaker.checkpoint.store import Store
from snapbreaker.errors import CheckpointError, UsageError
from snapbreaker.files.policy import PathClass, Policy
from snapbreaker.files.proof import Proof

DEAD = Owner(pid=1 << 22, start=1, boot="another boot")


def settled(store: Store, *states: State, kind: str = "run") -> Record:
    record = store.new()
    record.begin([DEAD])
    record.save_meta(Meta(record.id, record.sequence, kind, 0.0, ["true"], "/", ["/srv"], []))
    for state in states:
        record.enter(state)
    return record


TO_COMMITTED = (State.READY, State.RUNNING, State.CHECKING, State.COMMITTED)
TO_ROLLED_BACK = (
    State.READY,
    State.RUNNING,
    State.TRIPPED,
    State.RESTORING,
    State.VERIFYING,
    State.ROLLED_BACK,
)


def test_every_state_has_edges_and_can_be_reached() -> None:
    assert set(EDGES) == set(State)
    reached = {State.CREATING}
    for _ in State:
        reached |= {target for source in reached for target in EDGES[source]}
    assert reached == set(State)


def test_from_every_state_that_is_not_settled_a_rollback_can_be_reached() -> None:
    for state in set(State) - SETTLED - {State.CREATING}:
        reached = {state}
        for _ in State:
            reached |= {target for source in reached for target in EDGES[source]}
        assert State.ROLLED_BACK in reached


@pytest.mark.parametrize(
    ("old", "new"),
    [(State.CREATING, State.RUNNING), (State.TRIPPED, State.COMMITTED), (State.RESTORING, State.ROLLED_BACK)],
)
def test_there_is_no_way_around_a_step(old: State, new: State) -> None:
    with pytest.raises(IllegalTransition):
        check_edge(old, new)


def test_ids_only_grow_whatever_was_deleted(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    first, second = store.new(), store.new()
    assert (first.sequence, second.sequence) == (1, 2)
    os.rmdir(second.path)
    assert store.new().sequence == 3


def test_a_record_is_found_by_id_number_and_beginning(tmp_path: Path) -> None:
    store = Store(tmp_path)
    records = [settled(store, *TO_COMMITTED) for _ in range(3)]
    assert store.resolve(records[1].id).id == records[1].id
    assert store.resolve("2").id == records[1].id
    assert store.resolve(records[2].id[:8]).id == records[2].id
    assert store.resolve(None, last=True).id == records[2].id
    for wrong in ("00000", "9", "nonsense"):
        with pytest.raises(UsageError):
            store.resolve(wrong)
    with pytest.raises(UsageError):
        store.resolve(None)


def test_a_store_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    os.chmod(tmp_path / "store", 0o777)
    with pytest.raises(CheckpointError, match="writable by others"):
        Store(tmp_path / "store").new()


def test_the_metadata_makes_the_round_trip_with_odd_names(tmp_path: Path) -> None:
    record = Store(tmp_path).new()
    root = os.fsdecode(b"/srv/\xff\n dir")
    volume = Volume(0, root, "/srv", "ext4", "/dev/x", "8:1", (root + "/sub",))
    policy = Policy(((b"a\xfe", PathClass.KEEP), (b"log", PathClass.KEEP_CONTENT)))
    stored = Stored(volume, "/srv/.snapbreaker/x/0", str(tmp_path), policy, {"bytes": 12})
    meta = Meta(record.id, 1, "run", 1.5, ["rm", root], "/", [root], [])
    meta.volumes.append(VolumeRecord("filecopy", stored, Proof.take(), 0.25))
    record.save_meta(meta)
    again = Record(record.path).meta
    assert again == meta


def test_a_record_cut_off_in_its_first_instant_is_unfinished(tmp_path: Path) -> None:
    record = Store(tmp_path).new()
    assert record.state is State.CREATING
    assert record.unfinished()
    with pytest.raises(CheckpointError, match="not whole"):
        _ = record.meta


def test_a_run_whose_owner_lives_is_not_unfinished(tmp_path: Path) -> None:
    record = settled(Store(tmp_path), State.READY, State.RUNNING)
    assert record.unfinished()
    record.adopt([Owner.of(os.getpid())])
    assert not record.unfinished()
    assert record.owned()
    assert not record.owned(besides=os.getpid())


def test_a_checkpoint_made_by_hand_rests_when_it_is_ready(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert not settled(store, State.READY, kind="manual").unfinished()
    assert settled(store, State.READY, kind="run").unfinished()


def test_damaged_metadata_is_said(tmp_path: Path) -> None:
    record = settled(Store(tmp_path), *TO_COMMITTED)
    (record.path / "meta.json").write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        _ = Record(record.path).meta


def test_retention_by_count_takes_the_oldest_and_never_a_pinned_or_failed_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    pinned = settled(store, *TO_COMMITTED)
    pinned.pin(True)
    failed = settled(store, *TO_ROLLED_BACK[:-1], State.FAILED)
    old, new = settled(store, *TO_ROLLED_BACK), settled(store, *TO_COMMITTED)
    running = settled(store, State.READY, State.RUNNING)
    gone = Retention(count=1, days=None).expired(store.records())
    assert [record.id for record in gone] == [old.id]
    assert {pinned.id, failed.id, new.id, running.id}.isdisjoint(record.id for record in gone)


def test_retention_by_age_leaves_what_was_made_by_hand(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run = settled(store, *TO_COMMITTED)
    settled(store, State.READY, kind="manual")
    later = run.status["time"] + 31 * 86400
    assert [record.id for record in Retention(None, 30).expired(store.records(), later)] == [run.id]
    assert Retention(None, 32).expired(store.records(), later) == []


DAMAGE = ("", "{}", "[]", '{"state": "bogus"}', '{"state": "committed", "time": 1, "owners": [{"x": 1}]}')


@pytest.mark.parametrize("name", ["state.json", "meta.json"])
@pytest.mark.parametrize("text", DAMAGE)
def test_a_damaged_record_says_where_and_what_to_do(tmp_path: Path, name: str, text: str) -> None:
    record = settled(Store(tmp_path), *TO_COMMITTED)
    (record.path / name).write_text(text)
    with pytest.raises(CheckpointError) as raised:
        _ = Record(record.path).status, Record(record.path).meta
    assert str(record.path / name) in raised.value.message or "format" in raised.value.message
    assert not Record(record.path).is_of(1)
    assert Retention(0, 0).expired([Record(record.path)]) == [] or name == "meta.json"


def test_names_in_the_store_that_are_no_records(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = settled(store, *TO_COMMITTED)
    (tmp_path / "000009-20260101T000000").touch()
    (tmp_path / "000009-20260101T000000\n").mkdir()
    (tmp_path / "٠٠٠٠٠٩-20260101T000000").mkdir()
    assert [found.id for found in store.records()] == [record.id]


@pytest.mark.parametrize("text", ["", "²", "0", "9", "-1", "x"])
def test_ids_that_name_nothing(tmp_path: Path, text: str) -> None:
    """An empty one above all: the variable of a script that was never set."""
    store = Store(tmp_path)
    settled(store, *TO_COMMITTED)
    with pytest.raises(UsageError):
        store.resolve(text)


def test_a_state_that_cannot_be_saved_is_passed_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = settled(Store(tmp_path), *TO_COMMITTED[:2])

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("snapbreaker.checkpoint.record.write_file", full)
        record.pass_through(State.TRIPPED)
        record.pass_through(State.RESTORING, goal={"undo": False})
        record.pass_through(State.VERIFYING)
        with pytest.raises(OSError, match="No space"):
            record.enter(State.ROLLED_BACK)
        assert (record.state, Record(record.path).state) == (State.VERIFYING, State.RUNNING)
    record.enter(State.ROLLED_BACK)
    assert Record(record.path).state is State.ROLLED_BACK
    assert Record(record.path).status["goal"] == {"undo": False}
