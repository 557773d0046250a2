"""Restores of every kind of change, judged by the independent comparer."""

from __future__ import annotations

from pathlib import Path

from snapbreaker.files.diff import diff
from snapbreaker.files.displaced import Displaced
from snapbreaker.files.live import LiveTree
from snapbreaker.files.policy import Policy
from snapbreaker.files.proof import Proof
from snapbreaker.files.restore import Restored, restore
from snapbreaker.files.stage import Stage, remove_attempts
from snapbreaker.files.tree import Tree
from snapbreaker.files.undo import UndoSet, build_undo
from tests import comparer
from tests.fs.recording import record, recorded
from tests.lab import hostile
from tests.lab.loopfs import LoopFilesystem


def put_back(old: Tree, root: Path, vault: Path, policy: Policy | None = None) -> Restored:
    with LiveTree(str(root), policy) as live:
        return restore(old, live, diff(old, live, policy or Policy(), Proof.none()), Stage(str(vault)))


def vault_of(filesystem: LoopFilesystem) -> Path:
    vault = filesystem.path / ".snapbreaker/20260101-1/0"
    vault.mkdir(parents=True)
    return vault


def test_hostile_changes_from_a_recorded_copy(filesystem: LoopFilesystem, tmp_path: Path) -> None:
    root, vault = filesystem.path / "scope", vault_of(filesystem)
    hostile.seed(root)
    before = comparer.snapshot(root)
    with LiveTree(str(root)) as live:
        record(live, tmp_path)
    with recorded(tmp_path) as old:
        hostile.mutate(root)
        assert comparer.differences(before, comparer.snapshot(root))
        restored = put_back(old, root, vault)
        assert restored.failures == ()
        assert comparer.differences(before, comparer.snapshot(root)) == []
        again = put_back(old, root, vault)
        assert (again.placed, again.displaced, again.settled) == (0, 0, 0)


def test_restore_from_the_undo_set_and_back_again(filesystem: LoopFilesystem, tmp_path: Path) -> None:
    root, vault = filesystem.path / "scope", vault_of(filesystem)
    hostile.seed(root)
    before = comparer.snapshot(root)
    with LiveTree(str(root)) as live:
        record(live, tmp_path)
    hostile.mutate(root)
    after = comparer.snapshot(root)
    with recorded(tmp_path) as old, LiveTree(str(root)) as live:
        changes = list(diff(old, live, Policy(), Proof.none()))
        build_undo(old, live, changes, str(vault), str(tmp_path)).close()
    (tmp_path / "pack").write_bytes(b"")

    with UndoSet.open(str(tmp_path), str(vault)) as undo, LiveTree(str(root)) as live:
        assert isinstance(undo, UndoSet)
        assert undo.conflicts(live) == []
        assert sum((undo.counts.added, undo.counts.changed, undo.counts.removed)) == len(changes)
        restored = restore(undo, live, undo.changes(live), Stage(str(vault)))
        assert restored.failures == ()
        assert undo.verify(live) == []
        assert undo.conflicts(live) == []
    assert comparer.differences(before, comparer.snapshot(root)) == []

    with LiveTree(str(root)) as live, Displaced.open(str(vault), 1, live) as redo:
        assert isinstance(redo, Displaced)
        assert redo.conflicts(live) == []
        assert restore(redo, live, redo.changes(live), Stage(str(vault))).failures == ()
    assert comparer.differences(after, comparer.snapshot(root)) == []
    with LiveTree(str(root)) as live:
        remove_attempts(str(vault), live.root_fd)
    assert sorted(path.name for path in vault.iterdir()) == ["undo.pack"]
    assert comparer.differences(after, comparer.snapshot(root)) == []
