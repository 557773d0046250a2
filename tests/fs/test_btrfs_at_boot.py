"""A checkpoint takes a subvolume's place at the next mount; whatever ends the work, one whole root is mounted."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from snapbreaker.at_boot import take_back
from snapbreaker.checkpoint.states import State
from snapbreaker.errors import CheckpointError
from snapbreaker.files import ops
from snapbreaker.goal import Goal
from snapbreaker.issue import Issue
from snapbreaker_backends.btrfs import exchange, place
from tests import comparer
from tests.fs.checkpointed import Checkpointed
from tests.fs.rooted import BACKEND, Root, killed_at, schedule

CHANGE = """
echo new >etc/file; rm etc/link; mkdir etc/more; echo x >etc/more/file; chmod 700 var
btrfs -q subvolume delete home/inner >/dev/null; btrfs -q subvolume create extra; echo x >extra/file
echo new >>var/log/messages; echo new >var/lib/store/state; mkdir var/lib/store/2; rm -r home/file
btrfs -q subvolume create var/lib/machines/two; echo new >var/lib/machines/two/file
"""
LATER = "echo later >>var/log/messages; echo later >var/lib/store/state"


def test_the_checkpoint_takes_the_place_at_the_next_boot(root: Root) -> None:
    stored, before = root.checkpoint(), root.look()
    assert list(place.refusals(stored.volume)) == []
    root.sh(CHANGE)
    changed = root.look()
    schedule(stored)
    assert comparer.differences(changed, root.look()) == []
    assert not exchange.reverted(stored.volume, stored.vault)
    assert exchange.carry_over(stored.volume) == ""
    root.sh(LATER)
    kept = root.kept()
    root.reboot()
    assert exchange.reverted(stored.volume, stored.vault)
    with pytest.raises(CheckpointError, match="already"):
        exchange.call_off(stored.volume, stored.vault)
    assert exchange.carry_over(stored.volume) == "7-test"
    assert comparer.differences(before, root.look()) == []
    assert root.kept() == kept
    BACKEND.open(stored).close()
    assert exchange.carry_over(stored.volume) == "7-test"
    assert root.kept() == kept
    exchange.remove(stored.volume, stored.vault)
    left = root.top_level()
    assert [path for path in left if "at-boot" in path or "extra" in path] == []
    assert "@" in left
    assert comparer.differences(before, root.look()) == []


def test_it_can_be_called_off(root: Root) -> None:
    stored = root.checkpoint()
    root.sh(CHANGE)
    changed, left = root.look(), root.top_level()
    for _ in range(2):
        schedule(stored)
        exchange.call_off(stored.volume, stored.vault)
        exchange.call_off(stored.volume, stored.vault)
    assert root.top_level() == left
    root.reboot()
    assert comparer.differences(changed, root.look()) == []
    assert not exchange.reverted(stored.volume, stored.vault)


def test_killed_at_each_step(root: Root) -> None:
    stored, before = root.checkpoint(), root.look()
    root.sh(CHANGE)
    changed, step = root.look(), 1
    kept = root.kept()
    while killed_at(step, lambda: schedule(stored)):
        root.reboot()
        mounted = "new" if exchange.reverted(stored.volume, stored.vault) else "old"
        if mounted == "new":
            break
        assert comparer.differences(changed, root.look()) == [], step
        step += 1
    assert step > 8
    if not exchange.reverted(stored.volume, stored.vault):
        root.reboot()
    assert exchange.reverted(stored.volume, stored.vault)
    step = 1
    while killed_at(step, lambda: exchange.carry_over(stored.volume)):
        root.reboot()
        step += 1
    assert step > 8
    assert comparer.differences(before, root.look()) == []
    assert root.kept() == kept
    BACKEND.open(stored).close()
    step = 1
    while killed_at(step, lambda: exchange.remove(stored.volume, stored.vault)):
        step += 1
    assert [path for path in root.top_level() if "at-boot" in path] == []
    assert comparer.differences(before, root.look()) == []


def test_what_defeats_it_is_said(root: Root, tmp_path: Path) -> None:
    stored = root.checkpoint()
    (tmp_path / "fstab").write_text(f"{root.device} {root.path} btrfs noatime,subvolid=256 0 0\n")
    told = [reason.text for reason in place.refusals(stored.volume)]
    assert told == [f"{tmp_path}/fstab mounts {root.path} by subvolid=, which no other subvolume can have"]
    (tmp_path / "fstab").write_text("")
    root.sh(f"btrfs subvolume set-default 5 {root.path}")
    told = [reason.text for reason in place.refusals(stored.volume)]
    assert told == [f"{root.path} is neither mounted by subvol= at boot nor the filesystem's default subvolume"]


def test_what_will_not_go_back_live_does_so_at_the_next_boot(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = comparer.snapshot(root.path)
    machine = Checkpointed(root.path, tmp_path, "btrfs", guarded=False)
    machine.begin()
    root.sh(CHANGE)
    machine.made.pass_through(State.TRIPPED)
    with monkeypatch.context() as patched:
        patched.setattr(ops, "exchange", busy(b"file", ops.exchange))
        outcome = take_back(machine.made, Goal())
    assert machine.made.state is State.REBOOT_PENDING
    assert any("etc/file: cannot be put in place: Device" in note for note in outcome.notes), outcome.notes
    assert any("becomes what it was at the next boot" in note for note in outcome.notes)
    assert f"{root.path}/etc/link" in {one.path for volume in outcome.volumes for one in volume.changes.sample}
    root.reboot()
    volume = machine.made.meta.volumes[0].stored.volume
    assert exchange.carry_over(volume) == machine.made.id
    monkeypatch.setattr("snapbreaker.checkpoint.record.boot_id", lambda: "the next one")
    assert machine.recover() == 0
    assert str(machine.made.state) == "rolled-back"
    assert comparer.differences(before, comparer.snapshot(root.path)) == []
    machine.discard()


def test_not_by_itself_where_that_undoes_more_than_the_run(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Checkpointed(root.path, tmp_path, "btrfs", guarded=False)
    machine.begin()
    root.sh("echo new >etc/file")
    assert not isinstance(machine.commit(), Issue)
    monkeypatch.setattr(ops, "exchange", busy(b"file", ops.exchange))
    outcome = take_back(machine.made, Goal(undo=True))
    assert machine.made.state is State.FAILED
    assert outcome.volumes[0].refused
    monkeypatch.undo()
    machine.discard()


def busy(refused: bytes, genuine: Callable[..., None]) -> Callable[..., None]:
    """A name that nothing can be exchanged with."""

    def exchange_names(one: int, this: bytes, other: int, that: bytes) -> None:
        if refused in (this, that):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        genuine(one, this, other, that)

    return exchange_names
