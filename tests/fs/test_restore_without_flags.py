"""Restores on a filesystem that refuses the flags of renameat2(2), like ZFS 2.1: exact, whatever cuts them off."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapbreaker.files import exchange, ops
from snapbreaker.files.stage import attempts
from snapbreaker.linux import inode
from tests import comparer
from tests.fs.test_restore_crash import Ground, dies_at
from tests.lab.loopfs import LoopFilesystem

STRIDE = 3


def refuse(old_dir: int, old: bytes, new_dir: int, new: bytes, flags: int = 0) -> None:
    """As the kernel, which looks at the names before it asks the filesystem (vfs_rename in fs/namei.c)."""
    os.stat(old, dir_fd=old_dir, follow_symlinks=False)
    try:
        os.stat(new, dir_fd=new_dir, follow_symlinks=False)
    except FileNotFoundError:
        if flags & inode.RENAME_EXCHANGE:
            raise
    else:
        if flags & inode.RENAME_NOREPLACE:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    assert flags
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), new)


@pytest.fixture
def ground(filesystem: LoopFilesystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    monkeypatch.setattr(inode, "renameat2", refuse)
    ground = Ground(filesystem, tmp_path)
    yield ground
    ops.before = None
    ground.old.close()


def test_it_is_exact(ground: Ground) -> None:
    assert ground.restore().failures == ()
    ground.judge()
    assert [name for name in slots(ground) if b"." in name] == []


def test_death_at_every_step(ground: Ground) -> None:
    for step in itertools.count(ground.first, STRIDE):
        if not dies_at(ground, step):
            break
        judge_middle(ground)
        assert ground.restore().failures == ()
        ground.judge()
        assert [name for name in slots(ground) if b"." in name] == []
        ground.again()
    assert step > 100
    ground.judge()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_error_at_every_step_of_the_swap(ground: Ground, code: int) -> None:
    struck = 0
    for step in itertools.count(ground.first, STRIDE):
        count = 0

        def before(operation: str, name: bytes, step: int = step) -> None:
            nonlocal count
            count += operation in ("move", "link", "rename", "exchange")
            if count == step:
                raise OSError(code, os.strerror(code))

        ops.before = before
        try:
            ground.restore()
        finally:
            ops.before = None
        judge_middle(ground)
        ground.restore()
        ground.judge()
        ground.again()
        if count < step:
            break
        struck += 1
    assert struck > 15


@pytest.mark.parametrize("live", ["file", "directory", None])
@pytest.mark.parametrize("staged", ["file", "directory"])
def test_without_hard_links_either(
    staged: str, live: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(old_dir: int, old: bytes, new_dir: int, new: bytes) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), new)

    monkeypatch.setattr(inode, "renameat2", refuse)
    monkeypatch.setattr(ops, "link", no_links)
    slots, parent = tmp_path / "slots", tmp_path / "live"
    for place, kind in ((slots / "1", staged), (parent / "name", live)):
        place.parent.mkdir()
        if kind == "directory":
            place.mkdir()
            (place / "inside").write_text(place.name)
        elif kind:
            place.write_text(place.name)
    descriptors = [os.open(place, os.O_RDONLY | os.O_DIRECTORY) for place in (slots, parent)]
    identity = (slots / "1").stat().st_ino
    if live is None:
        exchange.put_in(descriptors[0], b"1", descriptors[1], b"name")
    else:
        with pytest.raises(FileExistsError):
            exchange.put_in(descriptors[0], b"1", descriptors[1], b"name")
        displaced = (parent / "name").stat().st_ino
        exchange.exchange(descriptors[0], b"1", descriptors[1], b"name")
        assert (slots / "1").stat().st_ino == displaced
    assert (parent / "name").stat().st_ino == identity
    assert os.listdir(parent) == ["name"]
    assert os.listdir(slots) == ([] if live is None else ["1"])
    for descriptor in descriptors:
        os.close(descriptor)


def judge_middle(ground: Ground) -> None:
    """As the ground's own, but that a name may be free, or an empty directory, where a directory comes or goes."""
    now = comparer.snapshot(ground.root)
    for path, fact in now.items():
        sides = [side[path] for side in (ground.before, ground.after) if path in side]
        known = (fact.kind, fact.digest, fact.target) in {(one.kind, one.digest, one.target) for one in sides}
        assert known or (fact.kind == "directory" and not any(os.scandir(ground.root / os.fsdecode(path)))), path
    for path in (ground.before.keys() & ground.after.keys()) - now.keys():
        above = [path[:end] for end in range(len(path) + 1) if path[end : end + 1] in (b"/", b"")]
        kinds = [{side[one].kind for side in (ground.before, ground.after) if one in side} for one in above]
        assert any(len(kind) > 1 for kind in kinds), path
    ground.judge_nothing_is_lost()


def slots(ground: Ground) -> list[bytes]:
    found = []
    for attempt in attempts(str(ground.vault)):
        found += [os.fsencode(name) for name in os.listdir(ground.vault / f"restore.{attempt}/slots")]
    return found
