"""Reading trees and content on real filesystems: mounts, subvolumes, holes, shared data."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snapbreaker.files.content import copy_content, not_shared, plain_content, same_content, same_sparseness
from snapbreaker.files.live import LiveTree
from snapbreaker.files.tree import Content, Extent
from snapbreaker.linux.clone import clone_range, data_ranges, unwritten_ranges
from tests.lab import subvolumes
from tests.lab.loopfs import LoopFilesystem

MIB = 1 << 20


@contextmanager
def mounted(*command: str | Path) -> Iterator[None]:
    """``command`` are the arguments of mount(8), the mount point last."""
    subprocess.run(["mount", *command], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", command[-1]], check=True)


def opened(path: Path) -> Content:
    return plain_content(os.open(path, os.O_RDONLY), os.fsencode(path))


def paths(tree: LiveTree) -> list[bytes]:
    return [entry.path for entry in tree.walk()]


@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_mounts_are_not_entered_and_are_named(filesystem: LoopFilesystem, kind: str) -> None:
    root = filesystem.path / "scope"
    for name in ("inside", "source"):
        (root / name).mkdir(parents=True)
    (root / "source" / "file").write_bytes(b"x")
    arguments = ("-t", "tmpfs", "none") if kind == "tmpfs" else ("--bind", root / "source")
    with mounted(*arguments, root / "inside"):
        (root / "inside" / "on the mount").write_bytes(b"x")
        with LiveTree(str(root)) as tree:
            shown = [b"", b"source", b"source/file"] + [b"source/on the mount"] * (kind == "bind")
            assert paths(tree) == shown
            assert tree.mounts == {b"inside"}
            assert tree.lookup(b"inside") is None
            assert tree.lookup(b"inside/on the mount") is None
            with pytest.raises(OSError, match="cross-device"):
                tree.open_parent(b"inside/on the mount")
        with LiveTree(str(root), skip=[b"inside"]) as tree:
            assert paths(tree) == shown
            assert tree.mounts == set()


def test_subvolumes_are_entered_and_stubs_are_stable(btrfs: LoopFilesystem) -> None:
    root = btrfs.path / "scope"
    subvolumes.create(root)
    for path in (root / "sub", root / "sub" / "nested"):
        subvolumes.create(path)
        (path / "file").write_bytes(b"x")
        (path / ".snapbreaker").mkdir()
        (path / ".snapbreaker" / "vault").write_bytes(b"x")
    (root / "plain" / ".snapbreaker").mkdir(parents=True)
    subvolumes.snapshot(root / "sub", root / "shot")
    with LiveTree(str(root)) as tree:
        found = {entry.path: entry for entry in tree.walk()}
        assert [path for path, entry in found.items() if entry.subvolume] == [b"", b"shot", b"sub", b"sub/nested"]
        assert b"sub/nested/file" in found
        assert b"plain/.snapbreaker" in found
        assert not [path for path in found if path.startswith((b"sub/.snapbreaker", b"shot/.snapbreaker"))]
        assert tree.lookup(b"sub/nested/.snapbreaker/vault") is None
        stub = found[b"shot/nested"]
        assert (stub.ino, stub.mtime_ns, stub.is_dir, stub.subvolume) == (2, 0, True, False)
        assert tree.lookup(b"shot/nested") == stub
        assert tree.details(stub) == ((0, 0, (), b"", False))
        assert tree.mounts == set()
        assert not tree.details(found[b"shot"]).read_only
        subvolumes.set_read_only(root / "shot", True)
        assert tree.details(found[b"shot"]).read_only


def test_space_allocated_ahead_is_undecided(filesystem: LoopFilesystem) -> None:
    a, b = filesystem.path / "a", filesystem.path / "b"
    for path in (a, b):
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, MIB)
            os.pwrite(file.fileno(), b"x" * 4096, MIB // 2)
            os.fsync(file.fileno())
    with open(filesystem.path / "hole", "wb") as file:
        file.truncate(MIB)
        os.pwrite(file.fileno(), b"x" * 4096, MIB // 2)
    a.read_bytes()  # its zeros are in the page cache now, and count as data for SEEK_DATA
    with open(a, "rb") as file:
        assert unwritten_ranges(file.fileno(), MIB) == [(0, MIB // 2), (MIB // 2 + 4096, MIB)]
    contents = [opened(path) for path in (a, b, filesystem.path / "hole")]
    for one in contents:
        for other in contents:
            assert same_content(one, other)
            assert same_sparseness(one, other)
    (filesystem.path / "zeros").write_bytes(bytes(MIB // 2) + b"x" * 4096 + bytes(MIB // 2 - 4096))
    zeros = opened(filesystem.path / "zeros")
    assert same_content(zeros, contents[2])
    assert not same_sparseness(zeros, contents[2])
    for content in (*contents, zeros):
        content.close()


def test_unwritten_space_in_many_pieces(ext4: LoopFilesystem) -> None:
    path, count = ext4.path / "file", 400
    with open(path, "w+b") as file:
        os.posix_fallocate(file.fileno(), 0, count * 8192)
        for number in range(count):
            os.pwrite(file.fileno(), b"x" * 4096, number * 8192)
        found = unwritten_ranges(file.fileno(), count * 8192)
    assert found == [(number * 8192 + 4096, number * 8192 + 8192) for number in range(count)]


SPARSE = [(0, 4096), (MIB, 2 * MIB), (4 * MIB, 4 * MIB + 5000)]


def _sparse(path: Path) -> Content:
    with open(path, "wb") as file:
        for start, end in SPARSE:
            os.pwrite(file.fileno(), os.urandom(end - start), start)
        os.fsync(file.fileno())
    return opened(path)


def test_a_whole_file_is_shared_where_the_filesystem_can(filesystem: LoopFilesystem) -> None:
    source = _sparse(filesystem.path / "source")
    for clone in (True, False):
        with open(filesystem.path / "copy", "wb") as copy:
            copied = copy_content(source, copy.fileno(), clone)
        shared = clone and filesystem.fstype != "ext4"
        assert copied == (0 if shared else sum(extent.length for extent in source.extents))
        twin = opened(filesystem.path / "copy")
        assert same_content(source, twin)
        assert same_sparseness(source, twin)
        twin.close()
    source.close()


def test_what_a_clone_no_longer_shares(filesystem: LoopFilesystem) -> None:
    """After writes, holes and clones at random: each byte that differs lies where the files do not share."""
    source = _sparse(filesystem.path / "source")
    old = (filesystem.path / "source").read_bytes()
    for seed in range(20):
        _change_a_clone(source, filesystem.path / "copy", random.Random(seed))
        twin = opened(filesystem.path / "copy")
        where, new = not_shared(source, twin), (filesystem.path / "copy").read_bytes()
        assert where is not None
        differ = [at for at in range(0, len(old), 89) if old[at] != new[at]]
        assert all(any(start <= at < end for start, end in where) for at in differ)
        assert same_content(source, twin, where) == (old == new)
        if filesystem.fstype != "ext4":
            assert sum(end - start for start, end in where) < 200_000  # of 1 MiB
        twin.close()
    source.close()


def _change_a_clone(source: Content, path: Path, choice: random.Random) -> None:
    with open(path, "w+b") as copy:
        copy_content(source, copy.fileno())
        twin = opened(path)
        assert bool(not_shared(source, twin)) == (path.parent.name.startswith("ext4"))
        twin.close()
        for _ in range(choice.randrange(4)):
            start, length = choice.randrange(SPARSE[-1][1] - 20_000), choice.choice([1, 5000, 4096, 20_000])
            act = choice.choice(["write", "hole", "clone"])
            if act == "write":
                os.pwrite(copy.fileno(), choice.randbytes(length), start)
            elif act == "hole":
                subprocess.run(["fallocate", "-p", "-o", f"{start}", "-l", f"{length}", copy.name], check=True)
            else:  # the same extent in another place
                clone_range(source.fd, MIB, 4096, copy.fileno(), start - start % 4096)


def test_extents_of_a_pack_are_shared_where_the_filesystem_can(filesystem: LoopFilesystem) -> None:
    """One file that is larger than its last whole block, between others: nothing of its neighbours shows."""
    with open(filesystem.path / "pack", "wb") as pack:
        pack.write(os.urandom(8192))
        extents = []
        for start, end in SPARSE:
            extents.append(Extent(start, pack.tell(), end - start))
            pack.write(os.urandom(end - start))
            pack.write(b"n" * (-pack.tell() % 4096 + 4096))
    packed = Content(os.open(filesystem.path / "pack", os.O_RDONLY), SPARSE[-1][1], tuple(extents))
    os.sync()
    with open(filesystem.path / "copy", "wb") as copy:
        copied = copy_content(packed, copy.fileno())
    assert (copied == 0) == (filesystem.fstype != "ext4")
    twin = opened(filesystem.path / "copy")
    assert twin.size == SPARSE[-1][1]
    assert same_content(packed, twin)
    assert same_sparseness(packed, twin)
    os.truncate(filesystem.path / "copy", twin.size + 10_000)
    assert (filesystem.path / "copy").read_bytes()[twin.size :] == bytes(10_000)
    twin.close()
    packed.close()


def test_data_ranges_of_a_fragmented_file(filesystem: LoopFilesystem) -> None:
    path, step = filesystem.path / "comb", 64 * 1024
    wanted = [(offset, offset + step) for offset in range(0, 300 * step, 2 * step)]
    with open(path, "wb") as file:
        for start, end in wanted:
            os.pwrite(file.fileno(), b"x" * (end - start), start)
        file.truncate(300 * step)
        os.fsync(file.fileno())
    with open(path, "rb") as file:
        assert list(data_ranges(file.fileno(), 300 * step)) == wanted
