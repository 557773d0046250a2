"""Random trees, changed at random by several processes: whatever was done, the checkpoint comes back exactly.

By the real backends, from the checkpoint itself, and after a commit from the undo set, and back again. Longer, and
with other examples each time: ``SNAPBREAKER_SOAK=20 pytest tests/fs/test_restore_random.py``.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapbreaker import parallel
from snapbreaker.commit import Committed
from snapbreaker.files import bounds, manifest_writer
from snapbreaker.outcome import Outcome
from tests import comparer
from tests.fs.checkpointed import Checkpointed, Facts
from tests.fs.conftest import MakeFilesystem
from tests.lab.operations import Operation, apply, apply_in_processes
from tests.lab.random_operations import examples, steps

# (filesystem, backend, whether a guard may be used): links, clones, snapshots, and copies of every byte.
GROUNDS = [("ext4", None, True), ("xfs", None, True), ("btrfs", None, True), ("ext4", "filecopy", False)]
EXAMPLES = 30  # on each
MOUNTED = b"mounted"  # a directory with a mount point in it, which nothing renames

SEED = steps(40)
CHANGES = st.lists(steps(25), min_size=1, max_size=3)  # by so many processes


@pytest.fixture(autouse=True)
def in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done in parts where a tree is large is done so here too."""
    monkeypatch.setattr(bounds, "_SMALL", 0)
    monkeypatch.setattr(parallel, "PATHS_WORTH_A_PROCESS", 1)
    monkeypatch.setattr("snapbreaker.files.walk._WORTH_KNOWING", 1)
    monkeypatch.setattr(manifest_writer, "RECORDS_PER_BLOCK", 4)
    monkeypatch.setattr("snapbreaker_backends.filecopy.again.RECORDS_PER_BLOCK", 4)


@pytest.mark.parametrize(("fstype", "backend", "guarded"), GROUNDS, ids=["links", "clones", "snapshots", "copies"])
def test_random_changes(
    make_filesystem: MakeFilesystem, tmp_path: Path, fstype: str, backend: str | None, guarded: bool
) -> None:
    filesystem = make_filesystem(fstype)
    numbers = itertools.count()

    @examples(EXAMPLES)
    @given(seed=SEED, changes=CHANGES, stays=st.booleans())
    def attempt(seed: list[Operation], changes: list[list[Operation]], stays: bool) -> None:
        number = next(numbers)
        root = filesystem.path / f"scope-{number}"
        (root / os.fsdecode(MOUNTED) / "point").mkdir(parents=True)
        with mounted(root / os.fsdecode(MOUNTED) / "point"):
            apply(os.fsencode(root), seed, MOUNTED)
            checkpoint = Checkpointed(root, tmp_path / str(number), backend, guarded)
            try:
                judge(checkpoint, changes, stays)
            finally:
                checkpoint.discard()

    attempt()


def judge(checkpoint: Checkpointed, changes: list[list[Operation]], stays: bool) -> None:
    before = checkpoint.facts()
    checkpoint.begin()
    apply_in_processes(os.fsencode(checkpoint.root), changes, MOUNTED)
    after = checkpoint.facts()
    if not stays:
        assert_exact(checkpoint.halt(), before, checkpoint)
        return
    assert isinstance(checkpoint.commit(), Committed)
    assert differences(after, checkpoint.facts()) == []
    assert_exact(checkpoint.undo(), before, checkpoint)
    assert_exact(checkpoint.redo(), after, checkpoint)
    assert_exact(checkpoint.undo(), before, checkpoint)


def assert_exact(outcome: Outcome, expected: Facts, checkpoint: Checkpointed) -> None:
    """The independent judge first: what the outcome says must be true."""
    assert differences(expected, checkpoint.facts()) == []
    assert outcome.verified, (outcome.errors, outcome.volumes)


def differences(old: Facts, new: Facts) -> list[str]:
    """But not where a snapshot has nothing in the place of a nested subvolume: an empty directory, which the
    kernel alone can make, and which the comparer takes for a mount point.
    """
    stubs = {path for path, fact in old.items() if fact.kind == "mountpoint" and not path.startswith(MOUNTED)}
    assert stubs <= new.keys()
    sides = ({path: fact for path, fact in side.items() if path not in stubs} for side in (old, new))
    return comparer.differences(*sides)


@contextmanager
def mounted(point: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", point], check=True)
