"""The undo set: what it goes back to, what it calls a conflict, and what it leaves alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from snapbreaker.errors import CheckpointError
from snapbreaker.files.diff import diff
from snapbreaker.files.entry import Aspect
from snapbreaker.files.live import LiveTree
from snapbreaker.files.policy import Policy
from snapbreaker.files.proof import Proof
from snapbreaker.files.restore import restore
from snapbreaker.files.stage import Stage
from snapbreaker.files.undo import Counts, UndoSet, build_undo

Change = Callable[[Path], object]


class Ground:
    """Two equal trees, ``old`` and ``live``; ``commit`` stores what undoes a change of ``live``."""

    def __init__(self, work: Path) -> None:
        self.old, self.live = work / "old", work / "live"
        self.vault, self.record = work / "vault", work / "record"
        for root in (self.old, self.live):
            (root / "dir/inner").mkdir(parents=True)
            (root / "dir/edited").write_text("before")
            (root / "dir/mode").write_text("the same")
            (root / "dir/inner/gone").write_text("gone")
            for directory, _, names in os.walk(root, topdown=False):
                for name in (*names, "."):
                    os.utime(Path(directory) / name, ns=(1, 1))
        self.vault.mkdir()
        self.record.mkdir()

    def run(self) -> None:
        """What the run does."""
        (self.live / "dir/edited").write_text("after")
        (self.live / "dir/mode").chmod(0o600)
        (self.live / "dir/inner/gone").unlink()
        (self.live / "made").mkdir()
        (self.live / "made/file").write_text("new")

    def commit(self) -> None:
        with LiveTree(str(self.old)) as old, LiveTree(str(self.live)) as live:
            changes = list(diff(old, live, Policy(), Proof.none()))
            build_undo(old, live, changes, str(self.vault), str(self.record)).close()

    def conflicts(self) -> list[bytes]:
        with self.undo() as undo, LiveTree(str(self.live)) as live:
            assert isinstance(undo, UndoSet)
            return undo.conflicts(live)

    def roll_back(self, below: bytes = b"") -> None:
        with self.undo() as undo, LiveTree(str(self.live)) as live:
            assert isinstance(undo, UndoSet)
            restored = restore(undo, live, undo.changes(live, below), Stage(str(self.vault)))
            assert restored.failures == ()
            assert undo.verify(live, [below]) == []

    def undo(self) -> UndoSet:
        return UndoSet.open(str(self.record), str(self.vault))

    def left(self) -> set[bytes]:
        with LiveTree(str(self.old)) as old, LiveTree(str(self.live)) as live:
            return {change.path for change in diff(old, live, Policy(), Proof.none())}


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    ground = Ground(tmp_path)
    ground.run()
    ground.commit()
    return ground


def test_all_is_undone(ground: Ground) -> None:
    with ground.undo() as undo:
        assert isinstance(undo, UndoSet)
        assert undo.counts == Counts(added=2, changed=4, removed=1)
        assert undo.octets == len("before") + len("gone")
    assert ground.conflicts() == []
    ground.roll_back()
    assert ground.left() == set()
    assert ground.conflicts() == [], "what is as it was before is no conflict"


def test_a_part_is_undone(ground: Ground) -> None:
    ground.roll_back(b"dir/inner")
    assert (ground.live / "dir/inner/gone").read_text() == "gone"
    assert (ground.live / "dir/edited").read_text() == "after"
    assert (ground.live / "made/file").exists()


def _replaced_by_equal(live: Path) -> None:
    status = (live / "dir/edited").stat()
    (live / "spare").write_text("after")
    os.chmod(live / "spare", status.st_mode)
    (live / "spare").rename(live / "dir/edited")
    os.utime(live / "dir/edited", ns=(0, status.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "paths"),
    [
        (lambda live: (live / "dir/edited").write_text("again"), [b"dir/edited"]),
        (lambda live: (live / "dir/mode").chmod(0o640), [b"dir/mode"]),
        (lambda live: (live / "dir/inner/gone").write_text("back"), [b"dir/inner/gone"]),
        (lambda live: (live / "made/of others").write_text("x"), [b"made/of others"]),
        (lambda live: (live / "made/file").unlink(), []),
        (lambda live: (live / "dir/of others").write_text("x"), []),
        (lambda live: os.link(live / "dir/edited", live / "backup"), []),
        (_replaced_by_equal, []),
    ],
    ids=["edited", "mode", "back", "inside", "gone", "beside", "linked", "equal"],
)
def test_conflicts(ground: Ground, change: Change, paths: list[bytes]) -> None:
    change(ground.live)
    assert ground.conflicts() == paths


def test_forced_undo_of_a_mode_leaves_newer_content_alone(ground: Ground) -> None:
    (ground.live / "dir/mode").write_text("newer")
    newer = (ground.live / "dir/mode").stat().st_mtime_ns
    ground.roll_back()
    assert (ground.live / "dir/mode").read_text() == "newer"
    assert (ground.live / "dir/mode").stat().st_mtime_ns == newer
    assert (ground.live / "dir/mode").stat().st_mode & 0o777 == 0o644


def test_what_others_made_stays(ground: Ground) -> None:
    (ground.live / "dir/of others").write_text("x")
    ground.roll_back()
    assert (ground.live / "dir/of others").read_text() == "x"
    assert ground.left() == {b"dir/of others"}


def test_times_around_are_put_right_after_a_cut(ground: Ground) -> None:
    ground.roll_back()
    os.utime(ground.live / "dir", ns=(5, 5))
    with ground.undo() as undo, LiveTree(str(ground.live)) as live:
        assert isinstance(undo, UndoSet)
        assert [(change.path, change.aspects) for change in undo.changes(live)] == [(b"dir", Aspect.MTIME)]


def test_not_whole(ground: Ground) -> None:
    os.truncate(ground.vault / "undo.pack", 3)
    with pytest.raises(CheckpointError, match="not whole"):
        ground.undo()
    (ground.vault / "undo.pack").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        ground.undo()


def test_commit_again_replaces(ground: Ground) -> None:
    (ground.live / "dir/edited").write_text("later")
    ground.commit()
    assert ground.conflicts() == []
    ground.roll_back()
    assert ground.left() == set()
    assert sorted(path.name for path in ground.record.iterdir()) == ["undo"]
