"""A tree in parts: together they are the whole, in its order, whatever the boundary became meanwhile."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from snapbreaker.files import bounds
from snapbreaker.files.bounds import Bounds, divide
from snapbreaker.files.live import LiveTree

NAMES = [b"a", b"a-b", b"a.b", b"a\x01", b"b", b"\xff\xfe", b"a b"]


def make(root: Path, seed: int, entries: int) -> None:
    choice = random.Random(seed)
    directories = [bytes(root)]
    for number in range(entries):
        path = choice.choice(directories) + b"/" + choice.choice(NAMES) + b"%d" % (number % 7)
        with open(path, "ab") if choice.random() < 0.7 and path not in directories else open("/dev/null"):
            pass
        if not Path(path.decode("utf-8", "surrogateescape")).exists():
            Path(path.decode("utf-8", "surrogateescape")).mkdir()
            directories.append(path)


@pytest.mark.parametrize("seed", range(10))
def test_parts_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(bounds, "_SMALL", 0)
    monkeypatch.setattr("snapbreaker.files.walk._WORTH_KNOWING", 1)
    make(tmp_path, seed, 300)
    with LiveTree(bytes(tmp_path)) as tree:
        whole = list(tree.walk())
        for count in (1, 2, 3, 7):
            parts = tree.parts(count)
            found = [list(tree.walk_part(part)) for part in parts]
            assert list(itertools.chain(*found)) == whole
            assert all(
                part.holds(entry.path) for part, entries in zip(parts, found, strict=True) for entry in entries
            )


def test_the_sizes_are_about_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_SMALL", 0)
    monkeypatch.setattr("snapbreaker.files.walk._WORTH_KNOWING", 1)
    for number in range(40):
        (tmp_path / f"d{number:02}").mkdir()
        for name in "abcde":
            (tmp_path / f"d{number:02}" / name).touch()
    with LiveTree(bytes(tmp_path)) as tree:
        counts = [len(list(tree.walk_part(part))) for part in tree.parts(2)]
    assert min(counts) > 80


@pytest.mark.parametrize("becomes", ["nothing", "file", "link"])
def test_the_boundary_vanishes(tmp_path: Path, becomes: str) -> None:
    for name in ("a/x", "b/c/x", "b/d/x", "c/x"):
        (tmp_path / name).mkdir(parents=True)
    parts = [Bounds(b"", b"b/d"), Bounds(b"b/d")]
    (tmp_path / "b/d/x").rmdir()
    (tmp_path / "b/d").rmdir()
    if becomes == "file":
        (tmp_path / "b/d").touch()
    elif becomes == "link":
        (tmp_path / "b/d").symlink_to("c")
    with LiveTree(bytes(tmp_path)) as tree:
        assert [entry for part in parts for entry in tree.walk_part(part)] == list(tree.walk())


def test_a_directory_above_the_boundary_becomes_a_file(tmp_path: Path) -> None:
    for name in ("a", "c"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "b").touch()
    with LiveTree(bytes(tmp_path)) as tree:
        parts = [Bounds(b"", b"b/d"), Bounds(b"b/d")]
        assert [entry for part in parts for entry in tree.walk_part(part)] == list(tree.walk())


def test_small_trees_are_not_divided() -> None:
    assert len(divide([(b"", 0), (b"a", 100), (b"b", 200)], 4)) == 1
    assert len(divide([], 4)) == 1
