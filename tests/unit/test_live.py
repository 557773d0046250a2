"""Walking real directories."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapbreaker.files.entry import Entry, sort_key
from snapbreaker.files.live import LiveTree
from snapbreaker.files.policy import PathClass, Policy

NAMES = [b"a", b"a b", b"new\nline", b"\xff\xfe", b"a-b", b"a.d", "ü".encode(), b"\x01", b"-rf"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    top.mkdir()
    return top


def make(root: Path, path: bytes, content: bytes = b"x") -> None:
    full = os.path.join(os.fsencode(root), path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, "wb") as file:
        file.write(content)


def paths(tree: LiveTree, below: bytes = b"") -> list[bytes]:
    return [entry.path for entry in tree.walk(below)]


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def test_any_name_in_the_order_of_sort_key(root: Path) -> None:
    for name in NAMES:
        make(root, b"d-" + name + b"/" + name)
        make(root, name)
    with LiveTree(str(root)) as tree:
        found = paths(tree)
        assert found == sorted(found, key=sort_key)
        assert len(found) == 1 + 3 * len(NAMES)
        assert found[0] == b""
        for path in found:
            entry = tree.lookup(path)
            assert entry is not None
            assert entry.path == path
    with LiveTree(os.fsencode(root)) as tree:
        assert paths(tree) == found


def test_entry_is_lstat(root: Path) -> None:
    make(root, b"file", b"12345")
    os.symlink("file", root / "link")
    os.mkfifo(root / "fifo")
    os.link(root / "file", root / "other")
    os.utime(root / "file", ns=(1, -1_500_000_001))
    with LiveTree(str(root)) as tree:
        for entry in tree.walk():
            status = os.lstat(os.path.join(os.fsencode(root), entry.path))
            assert entry == Entry(
                entry.path,
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
                status.st_ino,
                status.st_nlink,
                status.st_rdev,
                status.st_dev,
                False,
            )
            assert tree.lookup(entry.path) == entry


def test_symbolic_links_are_never_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    make(tmp_path, b"outside/secret")
    os.symlink("../outside", root / "out")
    os.symlink(".", root / "loop")
    with LiveTree(str(root)) as tree:
        assert paths(tree) == [b"", b"loop", b"out"]
        assert tree.lookup(b"out/secret") is None
        assert paths(tree, b"out/secret") == []
        with pytest.raises(OSError, match="open") as caught:
            tree.open_parent(b"out/secret")
        assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)
        entry = tree.lookup(b"out")
        assert entry is not None
        assert tree.details(entry).target == b"../outside"


def test_what_is_left_out(root: Path) -> None:
    for path in (
        b"keep/x",
        b"mnt/x",
        b"store/x",
        b".snapbreaker/x",
        b"in/.snapbreaker/x",
        b"in/keep",
        b"in/mnt/x",
    ):
        make(root, path)
    policy = Policy(((b"keep", PathClass.KEEP), (b"in/keep", PathClass.KEEP), (b"in", PathClass.KEEP_CONTENT)))
    with LiveTree(str(root), policy, skip=[b"mnt", b"in/mnt"], excluded=[b"store"]) as tree:
        assert paths(tree) == [b"", b"in", b"in/.snapbreaker", b"in/.snapbreaker/x"]
        for path in (b"keep", b"keep/x", b"mnt", b"mnt/x", b"store", b".snapbreaker/x", b"in/mnt/x"):
            assert tree.lookup(path) is None
            assert paths(tree, path) == []
    with LiveTree(str(root), Policy(((b"", PathClass.KEEP),))) as tree:
        assert paths(tree) == []


def test_walk_below(root: Path) -> None:
    for path in (b"a/b/c", b"a/b-c", b"a/b.d/x", b"z"):
        make(root, path)
    with LiveTree(str(root)) as tree:
        assert paths(tree, b"a/b") == [b"a/b", b"a/b/c"]
        assert paths(tree, b"a/b/c") == [b"a/b/c"]
        assert paths(tree, b"missing/x") == []
        assert paths(tree, b"z/x") == []


def _deep(root: Path, levels: int) -> None:
    fd = os.open(root, os.O_RDONLY)
    for level in range(levels):
        for name in ("deeper-and-deeper", "other"):
            os.mkdir(name, dir_fd=fd)
        os.close(os.open(f"file{level}", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        fd = _step(fd, "deeper-and-deeper")
    os.close(fd)


def _remove_deep(root: Path, levels: int) -> None:
    fd = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        fd = _step(fd, "deeper-and-deeper")
    for level in reversed(range(levels)):
        fd = _step(fd, "..")
        os.unlink(f"file{level}", dir_fd=fd)
        for name in ("deeper-and-deeper", "other"):
            os.rmdir(name, dir_fd=fd)
    os.close(fd)


def _step(fd: int, name: str) -> int:
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
    os.close(fd)
    return inner


def test_deeper_than_path_max_with_few_descriptors(root: Path) -> None:
    levels = 800
    _deep(root, levels)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (250, limits[1]))
    try:
        with LiveTree(str(root)) as tree:
            found = list(tree.walk())
            assert len(found) == 1 + 3 * levels
            deepest = max(found, key=lambda entry: len(entry.path))
            assert len(deepest.path) > 3 * 4096
            assert tree.lookup(deepest.path) == deepest
            assert tree.details(deepest).xattrs == ()
            assert [entry.path for entry in found] == sorted((entry.path for entry in found), key=sort_key)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        _remove_deep(root, levels)


def test_what_vanishes_or_changes_kind_while_walking(root: Path) -> None:
    for name in (b"a", b"b/x", b"c/x", b"d/x", b"e"):
        make(root, name)
    with LiveTree(str(root)) as tree:
        walk = tree.walk()
        assert [next(walk).path for _ in range(2)] == [b"", b"a"]
        os.unlink(root / "b" / "x")
        os.rmdir(root / "b")
        os.rename(root / "c", root.parent / "c")
        os.symlink("e", root / "c")
        os.rename(root / "d", root.parent / "d")
        make(root, b"d/y")
        assert [(entry.path, stat.S_IFMT(entry.mode)) for entry in walk] == [
            (b"c", stat.S_IFLNK),
            (b"d", stat.S_IFDIR),
            (b"d/y", stat.S_IFREG),
            (b"e", stat.S_IFREG),
        ]


def test_unreadable_directory_raises_with_its_path(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(root, b"a/b/c")
    with LiveTree(str(root)) as tree:

        def refused(*_: object, **__: object) -> int:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr("snapbreaker.files.walk.open_quietly", refused)
        with pytest.raises(OSError, match="Input/output") as caught:
            list(tree.walk())
        monkeypatch.undo()
    assert caught.value.filename == b"a"


def test_reading_leaves_access_times(root: Path) -> None:
    make(root, b"d/file", b"content")
    os.symlink("file", root / "d" / "link")
    for path in (root, root / "d", root / "d" / "file"):
        os.utime(path, ns=(10**18, 10**18))
    with LiveTree(str(root)) as tree:
        for entry in tree.walk():
            tree.details(entry)
            if entry.is_file:
                content = tree.content(entry)
                assert os.pread(content.fd, 99, 0) == b"content"
                content.close()
    for path in (root, root / "d", root / "d" / "file"):
        assert os.stat(path).st_atime_ns == 10**18


def test_details(root: Path) -> None:
    make(root, b"file")
    os.symlink(b"to\xff\n", root / "link")
    os.mkfifo(root / "fifo")
    for name in ("b", "a"):
        os.setxattr(root / "file", f"user.{name}", name.encode() + b"\0\xff")
        os.setxattr(root, f"user.{name}", b"")
    with LiveTree(str(root)) as tree:
        details = {entry.path: tree.details(entry) for entry in tree.walk()}
    assert details[b"file"].xattrs == ((b"user.a", b"a\0\xff"), (b"user.b", b"b\0\xff"))
    assert details[b""].xattrs == ((b"user.a", b""), (b"user.b", b""))
    assert details[b"link"].target == b"to\xff\n"
    assert details[b"fifo"].xattrs == ()


def test_another_kind_of_file_is_stale(root: Path) -> None:
    make(root, b"path")
    with LiveTree(str(root)) as tree:
        entry = tree.lookup(b"path")
        assert entry is not None
        os.unlink(root / "path")
        os.mkfifo(root / "path")
        with pytest.raises(OSError, match="Stale") as caught:
            tree.content(entry)
        assert caught.value.filename == b"path"
        os.unlink(root / "path")
        with pytest.raises(FileNotFoundError):
            tree.details(entry)


def test_mapped_directory_is_read_instead(root: Path, tmp_path: Path) -> None:
    make(root, b"sub/hidden")
    make(root, b"z")
    make(tmp_path, b"view/deep/seen", b"from the view")
    view = os.open(tmp_path / "view", os.O_RDONLY)
    with LiveTree(str(root), subvolumes={b"sub": view}) as tree:
        assert paths(tree) == [b"", b"sub", b"sub/deep", b"sub/deep/seen", b"z"]
        assert paths(tree, b"sub/deep") == [b"sub/deep", b"sub/deep/seen"]
        assert tree.lookup(b"sub/hidden") is None
        entry = tree.lookup(b"sub/deep/seen")
        assert entry is not None
        content = tree.content(entry)
        assert os.pread(content.fd, 99, 0) == b"from the view"
        content.close()
        assert tree.lookup(b"sub") == next(tree.walk(b"sub"))


def test_open_parent_sees_new_directory_after_forget(root: Path) -> None:
    make(root, b"d/old")
    with LiveTree(str(root)) as tree:
        fd, name = tree.open_parent(b"d/old")
        assert (os.listdir(fd), name) == (["old"], b"old")
        os.rename(root / "d", root / "away")
        make(root, b"d/new")
        tree.forget()
        assert os.listdir(tree.open_parent(b"d/new")[0]) == ["new"]
        before = len(os.listdir("/proc/self/fd"))
        for number in range(50):
            make(root, b"n%d/x" % number)
            tree.open_parent(b"n%d/x" % number)
        assert len(os.listdir("/proc/self/fd")) < before + 32
