"""What btrfs tells of changes leads to the same differences as a walk of everything."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given

from snapbreaker.backend import Stored
from snapbreaker.files.diff import diff
from snapbreaker.files.live import LiveTree
from snapbreaker.files.narrowed import narrowed
from snapbreaker.files.proof import Proof
from snapbreaker.files.tree import Tree
from snapbreaker_backends.btrfs import candidates as module
from tests.fs.test_restore_btrfs import BACKEND, checkpoint
from tests.lab import hostile, subvolumes
from tests.lab.loopfs import LoopFilesystem
from tests.lab.operations import Operation, apply
from tests.lab.random_operations import examples, steps


def differences(old: Tree, new: Tree, stored: Stored, below: bytes = b"") -> list[tuple[bytes, int]]:
    proof = Proof.from_dict(stored.data["proof"])
    return sorted((one.path, one.aspects) for one in diff(old, new, stored.policy, proof, below))


def assert_the_same(stored: Stored) -> set[bytes] | None:
    """The candidates, after a comparison of both ways."""
    with BACKEND.open(stored) as old, LiveTree(stored.volume.root, stored.policy) as live:
        if (found := old.candidates(live)) is None:
            return None  # it cannot be told: everything is walked
        for below in (b"", b"a", b"a/b", b"c/a.b", b"d8/f1", b"d9"):
            assert differences(*narrowed(old, live, found), stored, below) == differences(old, live, stored, below)
        return set(found)


STEPS = steps(without=["deep"])  # see below


@examples(40)
@given(seed=STEPS, change=STEPS)
def test_random_changes(btrfs: LoopFilesystem, seed: list[Operation], change: list[Operation]) -> None:
    work = Path(tempfile.mkdtemp(dir=btrfs.path))
    subvolumes.create(work / "top")
    root = work / "top" / "inner"
    root.mkdir()
    subvolumes.create(root / "a")
    subvolumes.create(root / "b")
    apply(os.fsencode(root), seed, b"")
    stored = checkpoint(root)
    try:
        apply(os.fsencode(root), change, b"")
        assert_the_same(stored)
    finally:
        BACKEND.discard(stored.volume, stored.vault, stored.record)
        shutil.rmtree(btrfs.path / ".snapbreaker", ignore_errors=True)


def test_paths_that_are_too_long_are_walked(btrfs: LoopFilesystem) -> None:
    root = btrfs.path / "scope"
    hostile.seed(root)
    stored = checkpoint(root)
    hostile.mutate(root)
    with BACKEND.open(stored) as old, LiveTree(stored.volume.root, stored.policy) as live:
        assert old.candidates(live) is None


def test_subvolumes_come_and_go(btrfs: LoopFilesystem) -> None:
    root = btrfs.path / "scope"
    root.mkdir()
    for name in ("stays", "goes", "is-replaced", "is-moved", "becomes-a-directory"):
        subvolumes.create(root / name)
        (root / name / "file").write_text("before")
        (root / name / "same").write_text("before")
    stored = checkpoint(root)
    (root / "stays/file").write_text("after")
    for name in ("goes", "is-replaced", "becomes-a-directory"):
        subvolumes.delete(root / name)
    subvolumes.create(root / "is-replaced")
    subvolumes.create(root / "is-new")
    (root / "is-new/file").write_text("after")
    (root / "becomes-a-directory").mkdir()
    (root / "is-moved").rename(root / "moved")
    with BACKEND.open(stored) as old, LiveTree(stored.volume.root, stored.policy) as live:
        found = old.candidates(live)
        if found is not None:  # None: another subvolume lies where one was, and everything is walked
            assert differences(*narrowed(old, live, found), stored) == differences(old, live, stored)


def test_a_small_change_of_a_large_tree(btrfs: LoopFilesystem) -> None:
    root = btrfs.path / "scope"
    for directory in range(50):
        (root / f"d{directory}").mkdir(parents=True)
        for file in range(50):
            (root / f"d{directory}/f{file}").write_text("before")
    stored = checkpoint(root)
    os.sync()
    (root / "d7/f7").write_text("after")
    (root / "d8").rename(root / "d9/inside")
    (root / "d10/f1").unlink()
    os.link(root / "d11/f1", root / "d12/linked")
    found = assert_the_same(stored)
    assert found is not None
    assert {b"d7/f7", b"d8", b"d9/inside", b"d10/f1", b"d11/f1", b"d12/linked"} <= found
    assert len(found) < 20


@pytest.mark.parametrize(("count", "told"), [(300, True), (2000, False)])
def test_many_names(btrfs: LoopFilesystem, count: int, told: bool) -> None:
    """What an inode's first item of names cannot hold is not told, and all is walked."""
    root = btrfs.path / "scope"
    root.mkdir()
    (root / "file").write_text("before")
    for number in range(count):
        os.link(root / "file", root / f"{number}-{'x' * 30}")
    stored = checkpoint(root)
    (root / "file").write_text("after")
    found = assert_the_same(stored)
    if told:
        assert found is not None
        assert len(found) == 1 + 1 + count  # the root, too
    else:
        assert found is None


def test_without_the_calls(btrfs: LoopFilesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    root = btrfs.path / "scope"
    root.mkdir()
    stored = checkpoint(root)

    def fails(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(module, "changed_inodes", fails)
    with BACKEND.open(stored) as old, LiveTree(stored.volume.root, stored.policy) as live:
        assert old.candidates(live) is None
