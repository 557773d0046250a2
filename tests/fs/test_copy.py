"""A tree is made again in another one: the same, whatever stood there, and however often it was cut off."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from snapbreaker.files.copy import copy_tree
from snapbreaker.files.live import LiveTree
from tests import comparer
from tests.fs.rooted import killed_at
from tests.lab import hostile
from tests.lab.loopfs import LoopFilesystem


def copied(source: Path, target: Path) -> None:
    """The directory ``kept`` of both."""
    tree, new = LiveTree(os.fsencode(source), vault_name=b"/"), os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        copy_tree(tree, new, b"kept")
    finally:
        tree.close()
        os.close(new)


def test_all_that_is_known_of_it(filesystem: LoopFilesystem) -> None:
    source, target = filesystem.path / "source", filesystem.path / "target"
    for each in (source, target):
        each.mkdir()
    hostile.seed(source / "kept")
    hostile.mutate(source / "kept")
    wanted = {path: facts._replace(subvolume="") for path, facts in comparer.snapshot(source / "kept").items()}
    for _ in range(2):
        copied(source, target)
        found = comparer.snapshot(target / "kept")
        assert comparer.differences(wanted, found) == []


def test_killed_at_each_step(ext4: LoopFilesystem) -> None:
    source, target = ext4.path / "source", ext4.path / "target"
    for each in (source, target):
        (each / "kept/inner").mkdir(parents=True)
    here = source / "kept"
    for name, text in {"file": "text", "inner/file": "other"}.items():
        (here / name).write_text(text)
    os.link(here / "file", here / "inner/link")
    os.symlink("file", here / "symlink")
    os.mkfifo(here / "fifo", 0o640)
    os.chmod(here, 0o1777)
    os.chown(here / "inner", 1000, 1000)
    wanted = comparer.snapshot(here)
    for step in itertools.count(1):
        if not killed_at(step, lambda: copied(source, target)):
            break
    assert step > 20
    assert comparer.differences(wanted, comparer.snapshot(target / "kept")) == []
