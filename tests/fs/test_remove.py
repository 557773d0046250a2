"""Removing trees that do not want to be removed, and stopping at what must not be."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from snapbreaker.files.remove import remove_tree
from tests.lab import hostile, inodes, subvolumes
from tests.lab.loopfs import LoopFilesystem


def remove(path: Path) -> None:
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        remove_tree(fd, os.fsencode(path.name))
    finally:
        os.close(fd)


def test_hostile_tree_goes_without_rest(filesystem: LoopFilesystem) -> None:
    root = filesystem.path / "scope"
    hostile.seed(root)
    hostile.mutate(root)
    remove(root)
    assert not os.path.lexists(root)
    assert (filesystem.path / "outside/file").exists(), "a symbolic link was followed"
    remove(root)  # nothing there is fine


def test_deep_tree_needs_few_descriptors(ext4: LoopFilesystem) -> None:
    top = ext4.path / "deep"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=fd)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    remove(top)
    assert not top.exists()


def test_single_files_of_any_kind(ext4: LoopFilesystem) -> None:
    (ext4.path / "link").symlink_to("/")
    os.mkfifo(ext4.path / "fifo")
    (ext4.path / "fixed").write_text("x")
    inodes.add_flags(ext4.path / "fixed", inodes.IMMUTABLE)
    for name in ("link", "fifo", "fixed"):
        remove(ext4.path / name)
    assert {path.name for path in ext4.path.iterdir()} <= {"lost+found"}


@pytest.mark.parametrize("immutable", [False, True])
def test_a_mount_is_never_entered(ext4: LoopFilesystem, immutable: bool) -> None:
    treasure, inside = ext4.path / "treasure", ext4.path / "tree/inside"
    treasure.mkdir()
    (treasure / "file").write_text("not yours")
    inside.mkdir(parents=True)
    if immutable:
        inodes.add_flags(inside, inodes.IMMUTABLE)
    subprocess.run(["mount", "--bind", treasure, inside], check=True)  # the same filesystem: st_dev does not tell
    try:
        with pytest.raises(OSError, match=r"busy|Invalid cross-device"):
            remove(ext4.path / "tree")
        assert (treasure / "file").read_text() == "not yours"
    finally:
        subprocess.run(["umount", inside], check=True)
    remove(ext4.path / "tree")
    assert not (ext4.path / "tree").exists()


def test_subvolumes(btrfs: LoopFilesystem) -> None:
    top = btrfs.path / "tree"
    subvolumes.create(top)
    for name in ("a", "a/b", "a/b/c", "empty"):
        subvolumes.create(top / name)
        (top / name / "file").write_text(name) if name != "empty" else None
    for name in ("a/b/c", "a/b", "a", "empty", ""):
        subvolumes.set_read_only(top / name, True)
    remove(top)
    assert not top.exists()
