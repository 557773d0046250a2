"""The engine's diff beside the independent comparer, on each filesystem, after every kind of change."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from snapbreaker.files.diff import diff
from snapbreaker.files.entry import Aspect, Change
from snapbreaker.files.live import LiveTree
from snapbreaker.files.policy import Policy
from snapbreaker.files.proof import TICK_NS, Proof
from snapbreaker.files.tree import Tree
from snapbreaker.files.verify import verify
from snapbreaker.linux import btrfs
from tests import comparer
from tests.fs.recording import record, recorded
from tests.lab import hostile
from tests.lab.loopfs import LoopFilesystem


def _settle() -> None:
    """Until everything that was changed so far is older than two ticks."""
    os.sync()
    time.sleep(3 * TICK_NS / 1e9)


def _compare(old: Tree, root: Path, proof: Proof) -> list[Change]:
    with LiveTree(str(root)) as live:
        return list(diff(old, live, Policy(), proof))


def _judge(changes: list[Change], before: dict[bytes, comparer.Facts], root: Path) -> None:
    """The same paths as the comparer's, but that it names only some members of a group of links that grew."""
    after = comparer.snapshot(root)
    wanted = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    found = {change.path: change.aspects for change in changes}
    assert len(found) == len(changes), "a path was yielded twice"
    assert wanted - found.keys() == set(), comparer.differences(before, after)
    assert {path for path in found.keys() - wanted if found[path] != Aspect.LINKS} == set()


def test_diff_of_manifest_agrees_with_comparer(filesystem: LoopFilesystem, tmp_path: Path) -> None:
    root = filesystem.path / "scope"
    hostile.seed(root)
    _settle()
    before = comparer.snapshot(root)
    with LiveTree(str(root)) as live:
        proof = record(live, tmp_path)
    with recorded(tmp_path) as old:
        assert _compare(old, root, proof) == []
        assert _compare(old, root, Proof.none()) == []
        hostile.mutate(root)
        quick, deep = _compare(old, root, proof), _compare(old, root, Proof.none())
        _judge(quick, before, root)
        assert [(c.path, c.aspects) for c in quick] == [(c.path, c.aspects) for c in deep]
        with LiveTree(str(root)) as live:
            told = verify(old, live, Policy(), proof, [])
    assert {difference.path for difference in told} == {change.path for change in quick}
    assert all(difference.text for difference in told)


def test_diff_of_btrfs_snapshots_agrees_with_comparer(btrfs_root: Path) -> None:
    before, proof = comparer.snapshot(btrfs_root), Proof.take()
    read_only = {path for path, facts in before.items() if facts.subvolume == "ro"}
    with _view(_snapshot(btrfs_root), read_only) as old:
        assert _compare(old, btrfs_root, proof) == []
        assert _compare(old, btrfs_root, Proof.none()) == []
        hostile.mutate(btrfs_root)
        changes = _compare(old, btrfs_root, proof)
        _judge(changes, before, btrfs_root)
        assert _compare(old, btrfs_root, Proof.none()) == changes


@pytest.fixture
def btrfs_root(make_filesystem: object) -> Path:
    filesystem = make_filesystem("btrfs")  # type: ignore[operator]
    root: Path = filesystem.path / "scope"
    hostile.seed(root)
    _settle()
    return root


def _snapshot(root: Path) -> dict[bytes, Path]:
    """Read-only snapshots of the subvolume that holds ``root`` and of each nested one, by path below ``root``."""
    top = root.parent
    fd = os.open(top, os.O_RDONLY)
    btrfs.sync(fd)
    made: dict[bytes, Path] = {}
    nested = [item.path for item in btrfs.nested_subvolumes(fd)]
    (top / ".snapbreaker").mkdir()
    vault = os.open(top / ".snapbreaker", os.O_RDONLY)
    for number, path in enumerate([b"", *nested]):
        source = os.open(os.path.join(os.fsencode(top), path), os.O_RDONLY)
        btrfs.create_snapshot(source, vault, b"%d" % number, read_only=True)
        os.close(source)
        made[path] = top / ".snapbreaker" / str(number)
    os.close(vault)
    os.close(fd)
    return made


def _view(snapshots: dict[bytes, Path], read_only: set[bytes]) -> LiveTree:
    inside = b"scope/"
    mapped = {
        path[len(inside) :]: os.open(place, os.O_RDONLY)
        for path, place in snapshots.items()
        if path.startswith(inside)
    }
    return LiveTree(str(snapshots[b""] / "scope"), subvolumes=mapped, read_only=read_only)
