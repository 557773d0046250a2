"""The overlay backend: what a command did in its sandbox is what the machine gets, or nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from snapbreaker.commit import Committed
from snapbreaker.sandbox.sandbox import Options
from tests import comparer
from tests.fs.conftest import MakeFilesystem
from tests.fs.ground import Ground
from tests.fs.sandboxed import Sandboxed, possible, visible
from tests.lab import hostile, inodes, subvolumes
from tests.lab.hostile_attributes import acl
from tests.lab.loopfs import LoopFilesystem

ACL = "system.posix_acl_access"


def ctimes(root: Path) -> dict[tuple[int, str], tuple[int, int]]:
    """Inode and ctime of all below ``root``, by the inode of the directory and the name."""
    found = {}
    for _, names, files, fd in os.fwalk(root):
        for name in names + files:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            found[os.fstat(fd).st_ino, name] = status.st_ino, status.st_ctime_ns
    return found


def settled() -> None:
    """What was just written is old enough to be told from what is written next."""
    time.sleep(0.02)


def check(root: Path, home: Path, change: Callable[[], None], options: Options | None = None) -> None:
    """Halted there is no trace; committed there is what the command saw; undone what was before, redone again."""
    before = comparer.snapshot(root)
    settled()
    run = Sandboxed(root, home / "1", options)
    run.begin()
    untouched = ctimes(root)
    run.inside(change)
    assert run.halt().verified
    assert ctimes(root) == untouched
    run.discard()

    run = Sandboxed(root, home / "2", options)
    run.begin()
    after = run.inside(change)
    assert comparer.differences(before, comparer.snapshot(root)) == []
    done = run.commit()
    assert isinstance(done, Committed), done
    run.close()
    assert visible(comparer.differences(after, comparer.snapshot(root))) == []
    assert run.undo().verified
    assert comparer.differences(before, comparer.snapshot(root)) == []
    assert run.redo().verified
    assert visible(comparer.differences(after, comparer.snapshot(root))) == []
    assert run.undo().verified
    assert comparer.differences(before, comparer.snapshot(root)) == []
    run.discard()
    assert comparer.differences(before, comparer.snapshot(root)) == []


def test_every_kind_of_change(filesystem: LoopFilesystem, tmp_path: Path) -> None:
    ground = Ground(filesystem, tmp_path)
    for path in (ground.root / "locked", ground.root / "locked/fixed"):
        inodes.remove_flags(path, inodes.IMMUTABLE)
    check(ground.root, tmp_path, possible(ground.change))


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
def test_hostile(make_filesystem: MakeFilesystem, tmp_path: Path, fstype: str) -> None:
    filesystem = make_filesystem(fstype)
    root = filesystem.path / "root"
    hostile.seed(root)
    disk = filesystem.path / "disk"
    disk.mkdir()
    check(root, tmp_path, possible(lambda: hostile.mutate(root), flags=True), Options(upper=str(disk)))


def test_on_a_disk(filesystem: LoopFilesystem, tmp_path: Path) -> None:
    ground = Ground(filesystem, tmp_path)
    disk = filesystem.path / "disk"
    disk.mkdir()
    check(ground.root, tmp_path, possible(ground.change, flags=True), Options(upper=str(disk)))
    assert list(disk.iterdir()) == []


def test_marks_of_another_overlay(make_filesystem: MakeFilesystem, tmp_path: Path) -> None:
    """As rootless containers keep their layers: what marks an upper for other users marks none for root."""
    filesystem = make_filesystem("ext4")
    root, disk = filesystem.path / "root", filesystem.path / "disk"
    (root / "layer").mkdir(parents=True)
    disk.mkdir()
    (root / "layer/old").write_text("kept")
    os.setxattr(root / "layer", "user.overlay.opaque", b"y")
    os.setxattr(root / "layer/old", "user.overlay.origin", b"1")

    def change() -> None:
        (root / "layer/new").write_text("new")
        with (root / "layer/old").open("a") as file:
            file.write(" and changed")

    check(root, tmp_path, change, Options(upper=str(disk)))
    check(root, tmp_path / "memory", change)


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("was", [None, 5])
@pytest.mark.parametrize("becomes", [None, 7])
def test_acls_on_xfs(
    make_filesystem: MakeFilesystem, tmp_path: Path, on_disk: bool, was: int | None, becomes: int | None
) -> None:
    """xfs lists an ACL under a second name, which is copied up into memory and stays there."""
    filesystem = make_filesystem("xfs")
    root, disk = filesystem.path / "root", filesystem.path / "disk"
    root.mkdir()
    disk.mkdir()
    (root / "file").write_text("x")
    if was is not None:
        os.setxattr(root / "file", ACL, acl(was, 1))
    before = comparer.snapshot(root)
    settled()
    run = Sandboxed(root, tmp_path, Options(upper=str(disk)) if on_disk else None)
    run.begin()

    def change() -> None:
        (root / "file").write_text("changed")
        if becomes is not None:
            os.setxattr(root / "file", ACL, acl(becomes, 2))
        elif was is not None:
            os.removexattr(root / "file", ACL)

    run.inside(change)
    assert isinstance(run.commit(), Committed)
    run.close()
    assert (root / "file").read_text() == "changed"
    assert (ACL in os.listxattr(root / "file")) == (becomes is not None)
    assert becomes is None or os.getxattr(root / "file", ACL) == acl(becomes, 2)
    assert run.undo().verified
    assert comparer.differences(before, comparer.snapshot(root)) == []
    run.discard()


def test_links_across_subvolumes(make_filesystem: MakeFilesystem, tmp_path: Path) -> None:
    """Outside link(2) says EXDEV. Each subvolume gets a file of its own, with its links."""
    root = make_filesystem("btrfs").path / "root"
    root.mkdir()
    subvolumes.create(root / "inner")
    before = comparer.snapshot(root)
    settled()
    run = Sandboxed(root, tmp_path)
    run.begin()

    def change() -> None:
        (root / "one").write_text("x")
        for name in ("two", "inner/three", "inner/four"):
            (root / name).hardlink_to(root / "one")

    run.inside(change)
    assert isinstance(run.commit(), Committed)
    run.close()
    assert sorted(run.crossed) == sorted(f"{root}/{name}" for name in ("one", "two", "inner/three", "inner/four"))
    for one, other in (("one", "two"), ("inner/three", "inner/four")):
        assert os.stat(root / one).st_nlink == 2
        assert os.path.samefile(root / one, root / other)
    assert run.undo().verified
    assert comparer.differences(before, comparer.snapshot(root)) == []
    run.discard()


def test_the_top_of_a_subvolume(make_filesystem: MakeFilesystem, tmp_path: Path) -> None:
    """It gets a place for slots, which is nobody else's change of it."""
    root = make_filesystem("btrfs").path / "root"
    root.mkdir()
    subvolumes.create(root / "inner")

    def change() -> None:
        (root / "inner").chmod(0o700)
        (root / "inner/new").write_text("x")

    check(root, tmp_path, change)


def test_a_link_of_what_is_changed(filesystem: LoopFilesystem, tmp_path: Path) -> None:
    """It becomes a file of its own, in a directory in which the command changed nothing."""
    root = filesystem.path / "root"
    (root / "calm").mkdir(parents=True)
    (root / "file").write_text("before")
    (root / "calm/link").hardlink_to(root / "file")
    before = comparer.snapshot(root)
    settled()
    run = Sandboxed(root, tmp_path)
    run.begin()
    after = run.inside(lambda: os.truncate(root / "file", 3))
    assert isinstance(run.commit(), Committed)
    run.close()
    assert comparer.differences(after, comparer.snapshot(root)) == []
    assert run.undo().verified
    assert comparer.differences(before, comparer.snapshot(root)) == []
    run.discard()
