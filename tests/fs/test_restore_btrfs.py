"""Restores from btrfs snapshots: subvolumes come back as subvolumes, with all that was nested in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapbreaker.backend import Creation, Stored
from snapbreaker.files.diff import Proof, diff
from snapbreaker.files.displaced import Displaced
from snapbreaker.files.live import LiveTree
from snapbreaker.files.restore import Restored, restore
from snapbreaker.files.stage import Stage, remove_attempts
from snapbreaker.volumes import discover
from snapbreaker_backends.btrfs import BtrfsBackend
from tests import comparer
from tests.lab import hostile, subvolumes
from tests.lab.loopfs import LoopFilesystem

BACKEND = BtrfsBackend()


def checkpoint(root: Path) -> Stored:
    scope = discover([str(root)], [])
    volume, policy = scope.volumes[0], scope.policies[0]
    vault = Path(volume.vault_base) / "7-test/0"
    vault.mkdir(parents=True)
    data = BACKEND.create(volume, Creation("7-test", str(vault), "/nonexistent", policy))
    return Stored(volume, str(vault), "/nonexistent", policy, data)


def put_back(stored: Stored) -> Restored:
    with BACKEND.open(stored) as old, LiveTree(stored.volume.root, stored.policy) as live:
        changes = diff(old, live, stored.policy, Proof.from_dict(stored.data["proof"]))
        return restore(old, live, changes, Stage(stored.vault))


@pytest.mark.parametrize("nested", [False, True], ids=["vault-beside", "vault-elsewhere"])
def test_hostile_changes(btrfs: LoopFilesystem, nested: bool) -> None:
    top = btrfs.path / "top"
    if nested:
        subvolumes.create(top)  # the vault lies in another subvolume, so slots cannot
    else:
        top.mkdir()
    root = top / "scope"
    hostile.seed(root)
    before = comparer.snapshot(root)
    stored = checkpoint(root)
    hostile.mutate(root)
    after = comparer.snapshot(root)
    assert put_back(stored).failures == ()
    assert comparer.differences(before, comparer.snapshot(root)) == []
    with LiveTree(str(root)) as live, Displaced.open(stored.vault, 1, live) as redo:
        assert isinstance(redo, Displaced)
        assert redo.conflicts(live) == []
        assert restore(redo, live, redo.changes(live), Stage(stored.vault)).failures == ()
        assert comparer.differences(after, comparer.snapshot(root)) == []
        remove_attempts(stored.vault, live.root_fd)
    assert put_back(stored).failures == ()
    assert comparer.differences(before, comparer.snapshot(root)) == []
