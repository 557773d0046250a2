"""Random trees, changed at random: restored exactly from a copy, from the undo set, and back again."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapbreaker.files.diff import diff
from snapbreaker.files.displaced import Displaced
from snapbreaker.files.live import LiveTree
from snapbreaker.files.policy import Policy
from snapbreaker.files.proof import Proof
from snapbreaker.files.restore import restore
from snapbreaker.files.stage import Stage, remove_attempts
from snapbreaker.files.tree import Tree
from snapbreaker.files.undo import UndoSet, build_undo
from tests import comparer
from tests.fs.recording import record, recorded
from tests.lab.loopfs import LoopFilesystem

NAMES = [b"a", b"b", b"c", b"new\nline", b"\xff\xfe", b"a.b", b"a-"]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(b"/".join)
NULL_AND_ZERO = [os.makedev(1, 3), os.makedev(1, 5)]
NUMBERS = st.integers(0, 5)


def make_file(path: bytes, number: int) -> None:
    with _regular(path, os.O_CREAT | os.O_TRUNC) as file:
        file.write(b"%d" % number * (1 + 5000 * (number % 2)))
        file.truncate(file.tell() + (200_000 if number == 3 else 0))


def edit(path: bytes, number: int) -> None:
    with _regular(path, 0) as file:
        file.write(b"edited %d" % number)


def _regular(path: bytes, flags: int) -> BinaryIO:
    """Never a fifo, which would block, nor a device, which would act."""
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        raise FileExistsError
    return open(os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o644), "wb")


def remove(path: bytes, number: int) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def attribute(path: bytes, number: int) -> None:
    if number:
        os.setxattr(path, "user.random", b"%d" % number, follow_symlinks=False)
    else:
        os.removexattr(path, "user.random", follow_symlinks=False)


SIMPLE: list[Callable[[bytes, int], Any]] = [
    make_file,
    edit,
    remove,
    attribute,
    lambda path, number: os.mkdir(path),
    lambda path, number: os.symlink(NAMES[number], path),
    lambda path, number: os.mkfifo(path),
    lambda path, number: os.mknod(path, 0o20600, NULL_AND_ZERO[number % 2]),
    lambda path, number: os.chmod(path, 0o4600 + number),
    lambda path, number: os.chown(path, number, number, follow_symlinks=False),
    lambda path, number: os.utime(path, ns=(0, number - 2), follow_symlinks=False),
]
PAIRS: list[Callable[[bytes, bytes], Any]] = [
    lambda one, other: os.link(one, other, follow_symlinks=False),
    os.rename,
]
STEP = st.one_of(
    st.tuples(st.sampled_from(SIMPLE), PATHS, NUMBERS),
    st.tuples(st.sampled_from(PAIRS), PATHS, PATHS),
)
STEPS = st.lists(STEP, max_size=40)


def apply(root: bytes, steps: list[tuple[Callable[..., Any], bytes, Any]]) -> None:
    for action, path, argument in steps:
        if isinstance(argument, bytes):
            argument = root + b"/" + argument
        try:
            action(root + b"/" + path, argument)
        except (OSError, shutil.Error):
            continue  # most random steps are not possible


def put_back(old: Tree, root: Path, vault: Path) -> None:
    with LiveTree(str(root)) as live:
        changes = diff(old, live, Policy(), Proof.none())
        assert restore(old, live, changes, Stage(str(vault))).failures == ()


@settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=STEPS, change=STEPS)
def test_random_changes(xfs: LoopFilesystem, seed: list[Any], change: list[Any]) -> None:
    work = Path(tempfile.mkdtemp(dir=xfs.path))
    root, vault, record_dir = work / "scope", work / "vault", work / "record"
    for directory in (root, vault, record_dir):
        directory.mkdir()
    try:
        apply(os.fsencode(root), seed)
        before = comparer.snapshot(root)
        with LiveTree(str(root)) as live:
            record(live, record_dir)
        apply(os.fsencode(root), change)
        after = comparer.snapshot(root)
        with recorded(record_dir) as old, LiveTree(str(root)) as live:
            changes = list(diff(old, live, Policy(), Proof.none()))
            build_undo(old, live, changes, str(vault), str(record_dir)).close()
            put_back(old, root, vault)
        assert comparer.differences(before, comparer.snapshot(root)) == []
        if changes:
            _there_and_back(root, vault, record_dir, before, after)
    finally:
        shutil.rmtree(work)


def _there_and_back(
    root: Path, vault: Path, record_dir: Path, before: dict[bytes, Any], after: dict[bytes, Any]
) -> None:
    """Undo the restore, then the change by the undo set alone."""
    with LiveTree(str(root)) as live:
        with Displaced.open(str(vault), 1, live) as redo:
            assert isinstance(redo, Displaced)
            assert restore(redo, live, redo.changes(live), Stage(str(vault))).failures == ()
        assert comparer.differences(after, comparer.snapshot(root)) == []
        remove_attempts(str(vault), live.root_fd)
        with UndoSet.open(str(record_dir), str(vault)) as undo:
            assert isinstance(undo, UndoSet)
            assert undo.conflicts(live) == []
            assert restore(undo, live, undo.changes(live), Stage(str(vault))).failures == ()
            assert undo.verify(live) == []
        assert comparer.differences(before, comparer.snapshot(root)) == []
