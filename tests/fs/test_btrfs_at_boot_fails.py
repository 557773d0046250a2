"""What goes wrong while a rollback at boot is scheduled: it is said, and nothing half done is left."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from snapbreaker import at_boot, rollback
from snapbreaker.at_boot import schedule, take_back
from snapbreaker.checkpoint.states import State
from snapbreaker.conclude import conclude
from snapbreaker.errors import CheckpointError, SnapbreakerError
from snapbreaker.exits import Exit
from snapbreaker.files import ops
from snapbreaker.goal import Goal
from snapbreaker.issue import Issue
from snapbreaker.story import Story
from snapbreaker.system import service
from snapbreaker_backends.btrfs import exchange
from tests import comparer
from tests.fs.checkpointed import Checkpointed, Quiet
from tests.fs.rooted import Root
from tests.lab.loopfs import LoopFilesystem
from tests.lab.tool import Tool


@pytest.fixture
def machine(root: Root, tmp_path: Path) -> Checkpointed:
    """A committed run."""
    made = Checkpointed(root.path, tmp_path, "btrfs", guarded=False)
    made.begin()
    root.sh("echo new >etc/file")
    assert not isinstance(made.commit(), Issue)
    return made


def failing(at: int, code: int, lasting: bool = False) -> Callable[[str, bytes], None]:
    numbers = itertools.count(1)

    def before(_operation: str, _name: bytes) -> None:
        number = next(numbers)
        if number == at or (lasting and number > at):
            raise OSError(code, os.strerror(code))

    return before


def test_each_step_fails(root: Root, machine: Checkpointed, monkeypatch: pytest.MonkeyPatch) -> None:
    changed, left = root.look(), root.top_level()
    for step in itertools.count(1):
        monkeypatch.setattr(ops, "before", failing(step, errno.ENOSPC))
        why = ""
        try:
            schedule(machine.made, Goal())
        except CheckpointError as error:
            why = str(error)
        monkeypatch.setattr(ops, "before", None)
        if not why:
            break
        assert "No space left" in why
        assert str(machine.made.state) == "committed"
        assert not machine.made.unfinished()
        assert root.top_level() == left
        assert comparer.differences(changed, root.look()) == []
    assert step > 8
    assert str(machine.made.state) == "reboot-pending"
    at_boot.call_off(machine.made)
    assert str(machine.made.state) == "committed"
    root.reboot()
    assert comparer.differences(changed, root.look()) == []


def test_nobody_would_finish_it(root: Root, machine: Checkpointed, monkeypatch: pytest.MonkeyPatch) -> None:
    """No root is replaced, which would hold what does: the running one has to."""
    monkeypatch.setattr(service, "missing", lambda store: "not enabled")
    with pytest.raises(CheckpointError, match="not enabled"):
        schedule(machine.made, Goal())
    assert machine.made.state is State.COMMITTED


def test_the_disk_fails_for_good(root: Root, machine: Checkpointed, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be called off is for `recover`: never "nothing was changed" for a root that is to come."""
    for step in itertools.count(1):
        monkeypatch.setattr(ops, "before", failing(step, errno.EIO, lasting=True))
        with pytest.raises(SnapbreakerError) as raised:
            schedule(machine.made, Goal())
        monkeypatch.setattr(ops, "before", None)
        if raised.value.exit_code == Exit.MANUAL:
            break
        assert machine.made.state is State.COMMITTED
    assert str(machine.made.state) == "restoring"
    machine.made.adopt([])
    assert machine.made.unfinished()
    assert machine.recover() == 0
    assert str(machine.made.state) == "rolled-back"
    assert root.sh("cat etc/file") == "old\n"
    root.reboot()
    assert root.sh("cat etc/file") == "old\n"
    assert [path for path in root.top_level() if "at-boot" in path] == []


def test_what_others_write_is_to_be_kept(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root that is replaced loses it."""
    machine = Checkpointed(root.path, tmp_path, "btrfs", guarded=False)
    machine.begin()
    machine.made.meta.foreign = "keep"
    root.sh("echo new >etc/file")
    machine.made.pass_through(State.TRIPPED)
    monkeypatch.setattr(ops, "exchange", refusing)
    outcome = take_back(machine.made, Goal())
    assert machine.made.state is State.FAILED
    assert not outcome.verified


def test_what_was_saved_of_others_is_told(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Checkpointed(root.path, tmp_path, "btrfs", guarded=False)
    machine.begin()
    root.sh("echo new >etc/file")
    machine.made.pass_through(State.TRIPPED)
    genuine = rollback.roll_back

    def roll_back(*args: object) -> object:
        outcome = genuine(*args)  # type: ignore[arg-type]
        outcome.volumes[0].foreign.append(("/mail/inbox", "saved"))
        return outcome

    monkeypatch.setattr(at_boot, "roll_back", roll_back)
    monkeypatch.setattr(ops, "exchange", once_refusing())
    outcome = take_back(machine.made, Goal())
    assert machine.made.state is State.REBOOT_PENDING
    assert outcome.volumes[0].foreign == [("/mail/inbox", "saved")]


def test_recover_says_that_a_boot_has_to_come(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Checkpointed(root.path, tmp_path, "btrfs", guarded=False)
    machine.begin()
    root.sh("echo new >etc/file")
    machine.made.adopt([])
    monkeypatch.setattr(ops, "exchange", once_refusing())
    assert machine.recover() == Exit.AT_REBOOT
    assert machine.made.state is State.REBOOT_PENDING


def test_no_run_while_what_is_kept_is_missing(root: Root, machine: Checkpointed) -> None:
    """Records may be missing among it, and a run that is cut off then would never be finished."""
    schedule(machine.made, Goal())
    root.sh("rm -rf keptsub; echo not to be carried >var/log/messages")
    root.reboot()
    volume = machine.made.meta.volumes[0].stored.volume
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ops, "before", failing(2, errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            at_boot.carry_over()
    with pytest.raises(CheckpointError, match="has not come over"):
        machine.store.refuse_pending()
    at_boot.carry_over()
    assert exchange.reverted(volume, machine.made.meta.volumes[0].stored.vault)
    with pytest.raises(CheckpointError, match="takes effect at boot"):
        machine.store.refuse_pending()


def test_nothing_goes_by_outdated_records(tool: Tool, btrfs: LoopFilesystem) -> None:
    """A volume was replaced, and `recover` could not bring over what is kept, the store among it."""
    root = btrfs.path / "root"
    root.mkdir()
    assert tool("checkpoint", "create", "--scope", root).status == 0
    made = next(one.name for one in tool.store.iterdir() if one.is_dir() and "-" in one.name)
    (tool.home / "run/carrying").touch()
    for words in (
        ("checkpoint", "delete", "--force", made),
        ("checkpoint", "prune", "--count", "0"),
        ("checkpoint", "create", "--scope", root),
        ("rollback", made, "--yes"),
        ("run", "--scope", root, "--", "true"),
    ):
        refused = tool(*words)
        assert refused.status == 4, words
        assert b"has not come over" in refused.stderr
    assert tool("recover").status == 0
    assert tool("checkpoint", "delete", made).status == 0


def test_a_checkpoint_made_by_hand_can_be_gone_back_to_again(root: Root, machine: Checkpointed) -> None:
    record, goal = machine.made, Goal(rest=State.READY)
    record.meta.kind = "manual"
    for _ in range(2):
        schedule(record, goal)
        root.sh("echo later >etc/file")
        root.reboot()
        at_boot.carry_over()
        outcome = take_back(record, goal)
        assert record.state is State.READY
        story = Story(record, Quiet(), verb="rollback")
        story.outcome = outcome
        assert conclude(record, story) == Exit.OK
        assert not record.status["at_boot"]
        assert root.sh("cat etc/file") == "old\n"


def refusing(*_: object) -> None:
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def once_refusing() -> Callable[..., None]:
    """Nothing can be exchanged but subvolumes."""
    genuine = ops.exchange

    def exchange_names(one: int, this: bytes, other: int, that: bytes) -> None:
        if this != b"other":
            refusing()
        genuine(one, this, other, that)

    return exchange_names
