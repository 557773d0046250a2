"""Random trees, changed at random in a sandbox: the machine gets what the command saw, and all of it goes back."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest
from hypothesis import given

from snapbreaker.commit import Committed
from snapbreaker.issue import Issue
from snapbreaker.sandbox.sandbox import Options
from tests import comparer
from tests.fs.checkpointed import Facts
from tests.fs.conftest import MakeFilesystem
from tests.fs.sandboxed import Sandboxed, visible
from tests.fs.test_restore_random import MOUNTED, SEED, differences, mounted
from tests.lab import loopfs
from tests.lab.operations import Operation, apply
from tests.lab.random_operations import examples, steps

EXAMPLES = 30  # on each, 0.2 s an example; one that fails is made smaller for up to 5 minutes
LONG_TARGET = "File name too long"  # xfs keeps 1,024 octets of a symbolic link, memory 4,095


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("fstype", loopfs.FSTYPES)
def test_random_changes(make_filesystem: MakeFilesystem, tmp_path: Path, fstype: str, on_disk: bool) -> None:
    filesystem = make_filesystem(fstype)
    disk = filesystem.path / "disk"
    disk.mkdir()
    numbers = itertools.count()

    @examples(EXAMPLES)
    @given(seed=SEED, change=steps(40))
    def attempt(seed: list[Operation], change: list[Operation]) -> None:
        number = next(numbers)
        root = filesystem.path / f"scope-{number}"
        point = root / os.fsdecode(MOUNTED) / "point"
        point.mkdir(parents=True)
        with mounted(point):
            apply(os.fsencode(root), seed, MOUNTED)
            time.sleep(0.02)
            options = Options(upper=str(disk)) if on_disk else Options()
            judge(Sandboxed(root, tmp_path / str(number), options), change)

    attempt()


def judge(run: Sandboxed, change: list[Operation]) -> None:
    before = comparer.snapshot(run.root)
    run.begin()
    try:
        after = plain(run.inside(lambda: apply(os.fsencode(run.root), change, MOUNTED)))
        assert differences(before, comparer.snapshot(run.root)) == []
        done = run.commit()
        if isinstance(done, Issue) and LONG_TARGET in done.reason:
            assert run.halt().verified
            assert differences(before, comparer.snapshot(run.root)) == []
            return
        assert isinstance(done, Committed), done
        assert seen(run, after) == []
        for verified, expected in ((run.undo, before), (run.redo, after), (run.undo, before)):
            outcome = verified()
            assert seen(run, expected) == []
            assert outcome.verified, (outcome.errors, outcome.volumes)
    finally:
        run.close()
        run.discard()


def seen(run: Sandboxed, expected: Facts) -> list[str]:
    """How the machine differs from it. Links across subvolumes, which only a sandbox can have, are files there."""
    found = visible(differences(plain(expected), plain(comparer.snapshot(run.root))))
    return [line for line in found if not (run.crossed and ": linked " in line)]


def plain(facts: Facts) -> Facts:
    """Without the second name that xfs gives an ACL, and memory does not."""
    return {
        path: fact._replace(xattrs=tuple(one for one in fact.xattrs if b"SGI_ACL" not in one[0]))
        for path, fact in facts.items()
    }
