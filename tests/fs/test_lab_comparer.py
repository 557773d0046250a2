"""The comparer sees every kind of difference, says nothing where there is none, and leaves no trace."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import comparer
from tests.lab import inodes, subvolumes
from tests.lab.loopfs import LoopFilesystem

NAME = b"new\nline \xff\xfe"


def seed(top: Path) -> None:
    (top / "directory").mkdir()
    (top / "file").write_bytes(b"content")
    os.link(top / "file", top / "linked")
    (top / "single").write_bytes(b"single")
    (top / os.fsdecode(NAME)).write_bytes(b"odd")
    (top / "symlink").symlink_to("file")
    os.mkfifo(top / "fifo")
    os.mknod(top / "device", 0o20600, os.makedev(1, 3))
    with (top / "sparse").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"island")
    os.sync()


def keep_mtime(path: Path, change: Callable[[Path], object]) -> None:
    before = os.stat(path)
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def deallocate(top: Path) -> None:
    """The same zeros, but written: content is equal, the holes are not."""

    def fill(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content)

    keep_mtime(top / "sparse", fill)


def split(top: Path) -> None:
    """The same content under the same name, but of another inode."""
    directory = os.stat(top)
    file = os.stat(top / "linked")
    (top / "linked").unlink()
    (top / "linked").write_bytes(b"content")
    os.utime(top / "linked", ns=(file.st_atime_ns, file.st_mtime_ns))
    os.utime(top, ns=(directory.st_atime_ns, directory.st_mtime_ns))


def same_size(top: Path) -> None:
    keep_mtime(top / "single", lambda path: path.write_bytes(b"SINGLE"))


CASES: dict[str, tuple[Callable[[Path], object], set[tuple[bytes, str]]]] = {
    "content": (same_size, {(b"single", "digest")}),
    "mode": (lambda top: (top / "single").chmod(0o4755), {(b"single", "mode")}),
    "mode of a directory": (lambda top: (top / "directory").chmod(0o1755), {(b"directory", "mode")}),
    "owner": (lambda top: os.chown(top / "fifo", 7, 8), {(b"fifo", "uid"), (b"fifo", "gid")}),
    "owner of a symlink": (lambda top: os.lchown(top / "symlink", 7, -1), {(b"symlink", "uid")}),
    "time": (lambda top: os.utime(top / "single", ns=(0, -1)), {(b"single", "mtime_ns")}),
    "time of a directory": (lambda top: os.utime(top / "directory", ns=(0, 1)), {(b"directory", "mtime_ns")}),
    "user xattr": (lambda top: os.setxattr(top / "single", "user.x", b"1"), {(b"single", "xattrs")}),
    "xattr of a symlink": (
        lambda top: os.setxattr(top / "symlink", "trusted.x", b"1", follow_symlinks=False),
        {(b"symlink", "xattrs")},
    ),
    "capability": (
        lambda top: os.setxattr(
            top / "single", "security.capability", struct.pack("<5I", 0x2000001, 1 << 10, 0, 0, 0)
        ),
        {(b"single", "xattrs")},
    ),
    "default ACL": (
        lambda top: subprocess.run(["setfacl", "-d", "-m", "u:7:rwx", top / "directory"], check=True),
        {(b"directory", "xattrs")},
    ),
    "inode flags": (lambda top: inodes.add_flags(top / "single", inodes.NOATIME), {(b"single", "flags")}),
    "hard links": (split, {(b"file", "linked"), (b"linked", "linked")}),
    "sparseness": (deallocate, {(b"sparse", "data")}),
}


@pytest.mark.parametrize("case", CASES)
def test_difference_is_named(filesystem: LoopFilesystem, case: str) -> None:
    seed(filesystem.path)
    before = comparer.snapshot(filesystem.path)
    change, expected = CASES[case]
    change(filesystem.path)
    os.sync()
    after = comparer.snapshot(filesystem.path)
    assert named(before, after) == expected
    assert {line.split(": ")[0] for line in comparer.differences(before, after)} == {repr(p) for p, _ in expected}


def named(old: dict[bytes, comparer.Facts], new: dict[bytes, comparer.Facts]) -> set[tuple[bytes, str]]:
    assert old.keys() == new.keys()
    return {
        (path, field)
        for path in old
        for field in comparer.Facts._fields
        if getattr(old[path], field) != getattr(new[path], field)
    }


def test_replaced_by_another_type(filesystem: LoopFilesystem) -> None:
    seed(filesystem.path)
    before = comparer.snapshot(filesystem.path)
    for name in ("single", "fifo", os.fsdecode(NAME)):
        (filesystem.path / name).unlink()
    (filesystem.path / "single").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(filesystem.path / "fifo"))
    found = comparer.differences(before, comparer.snapshot(filesystem.path))
    assert "b'single': kind 'file' -> 'directory'" in found
    assert "b'fifo': kind 'fifo' -> 'socket'" in found
    assert f"{NAME!r}: missing file" in found


def test_snapshot_changes_nothing(filesystem: LoopFilesystem) -> None:
    seed(filesystem.path)
    paths = [filesystem.path, *filesystem.path.iterdir()]
    subprocess.run(["mount", "-o", "remount,strictatime", filesystem.path], check=True)
    before = [os.lstat(path) for path in paths if not path.is_symlink()]
    first = comparer.snapshot(filesystem.path)
    after = [os.lstat(path) for path in paths if not path.is_symlink()]
    assert [(s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns) for s in before] == [
        (s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns) for s in after
    ]
    assert comparer.differences(first, comparer.snapshot(filesystem.path)) == []


def test_left_out(filesystem: LoopFilesystem) -> None:
    seed(filesystem.path)
    for name in (".snapbreaker", "kept", "directory/.snapbreaker"):
        (filesystem.path / name / "below").mkdir(parents=True)
    paths = comparer.snapshot(filesystem.path, exclude=[b"kept"]).keys()
    assert b"kept" not in paths
    assert not any(path.startswith(b".snapbreaker") for path in paths)
    assert b"directory/.snapbreaker/below" in paths


def test_subvolumes(btrfs: LoopFilesystem) -> None:
    top = btrfs.path
    subvolumes.create(top / "volume")
    subvolumes.create(top / "volume/nested")
    (top / "volume/nested/file").write_bytes(b"x")
    before = comparer.snapshot(top)
    assert [before[path].subvolume for path in (b"", b"volume", b"volume/nested")] == ["rw"] * 3
    assert b"volume/nested/file" in before
    subvolumes.set_read_only(top / "volume", True)
    assert named(before, comparer.snapshot(top)) == {(b"volume", "subvolume")}


def test_project_id(xfs: LoopFilesystem) -> None:
    seed(xfs.path)
    before = comparer.snapshot(xfs.path)
    inodes.set_project(xfs.path / "single", 77)
    assert named(before, comparer.snapshot(xfs.path)) == {(b"single", "project")}


def test_command_line(ext4: LoopFilesystem, tmp_path: Path) -> None:
    seed(ext4.path)
    call = [sys.executable, comparer.__file__]
    subprocess.run([*call, "save", ext4.path, tmp_path / "saved"], check=True)
    assert subprocess.run([*call, "diff", ext4.path, tmp_path / "saved"]).returncode == 0
    (ext4.path / "single").unlink()
    result = subprocess.run([*call, "diff", ext4.path, tmp_path / "saved"], capture_output=True, text=True)
    assert result.returncode == 1
    assert "b'single': missing file" in result.stdout


def test_a_huge_sparse_file_is_judged_at_once(filesystem: LoopFilesystem) -> None:
    for name, offset in (("one", 1 << 40), ("other", (1 << 40) + 1)):
        with (filesystem.path / name).open("wb") as file:
            file.truncate(2 << 40)
            file.seek(offset)
            file.write(b"island")
        os.utime(filesystem.path / name, ns=(0, 0))
    one, other = (comparer.snapshot(filesystem.path)[name] for name in (b"one", b"other"))
    assert one == other._replace(digest=one.digest)
    assert one.digest != other.digest
