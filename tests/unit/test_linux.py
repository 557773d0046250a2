"""Thin wrappers of system calls, each also in the form for kernels that lack the newest one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from snapbreaker.linux import openat, xattr
from snapbreaker.linux.inode import RENAME_EXCHANGE, RENAME_NOREPLACE, get_flags, renameat2, set_flags
from snapbreaker.linux.libc import check
from snapbreaker.linux.mountinfo import Mount, parse_mount, read_mounts
from snapbreaker.linux.writeback import syncfs

Opener = Callable[..., int]
OPENERS: list[Opener] = [openat.open_beneath, openat.open_by_component]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "file").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    os.symlink("../secret", tmp_path / "in" / "leak")
    os.symlink("deep", tmp_path / "in" / "alias")
    os.symlink("/", tmp_path / "in" / "slash")
    return tmp_path / "in"


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize(
    ("path", "codes"),
    [
        (b"leak", {errno.ELOOP}),
        (b"alias/file", {errno.ELOOP, errno.ENOTDIR}),
        (b"slash/etc", {errno.ELOOP, errno.ENOTDIR}),
        (b"../secret", {errno.EXDEV}),
        (b"deep/../../secret", {errno.EXDEV}),
        (b"/etc/passwd", {errno.EXDEV}),
        (b"missing", {errno.ENOENT}),
    ],
)
def test_nothing_leads_out(directory: Path, opener: Opener, path: bytes, codes: set[int]) -> None:
    fd = os.open(directory, os.O_RDONLY)
    with pytest.raises(OSError, match="openat") as caught:
        opener(fd, path, os.O_RDONLY)
    assert caught.value.errno in codes
    assert caught.value.filename == path
    os.close(fd)


@pytest.mark.parametrize("opener", OPENERS)
def test_open_inside(directory: Path, opener: Opener) -> None:
    fd = os.open(directory, os.O_RDONLY)
    file = opener(fd, b"deep/file", os.O_RDONLY)
    assert os.read(file, 99) == b"inside"
    assert not os.get_inheritable(file)
    link = opener(fd, b"leak", os.O_PATH | os.O_NOFOLLOW)
    assert os.path.samestat(os.fstat(link), os.lstat(directory / "leak"))
    with pytest.raises(OSError, match="openat"):
        opener(fd, b"leak", os.O_PATH)
    made = opener(fd, b"deep/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    itself = openat.open_beneath(fd, b"", os.O_RDONLY)
    assert os.path.samestat(os.fstat(itself), os.fstat(fd))
    for each in (file, link, made, itself, fd):
        os.close(each)


@pytest.mark.parametrize("have", [True, False])
def test_longer_than_path_max(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, have: bool) -> None:
    monkeypatch.setattr(openat, "HAVE_OPENAT2", have and openat.HAVE_OPENAT2)
    top = os.open(tmp_path, os.O_RDONLY)
    fd, name = os.dup(top), b"n" * 250
    for _ in range(40):
        os.mkdir(name, dir_fd=fd)
        inner = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    before = len(os.listdir("/proc/self/fd"))
    found = openat.open_beneath(top, b"/".join([name] * 40), os.O_RDONLY)
    assert os.path.samestat(os.fstat(found), os.fstat(fd))
    assert len(os.listdir("/proc/self/fd")) == before + 1
    for each in (found, fd, top):
        os.close(each)


@pytest.mark.skipif(not os.path.exists("/proc/self/exe"), reason="needs /proc: mount it")
def test_one_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    root = os.open("/", os.O_RDONLY)
    for have in {openat.HAVE_OPENAT2, False}:
        monkeypatch.setattr(openat, "HAVE_OPENAT2", have)
        os.close(openat.open_beneath(root, b"proc/version", os.O_RDONLY))
        with pytest.raises(OSError, match="openat") as caught:
            openat.open_beneath(root, b"proc/version", os.O_RDONLY, one_mount=True)
        assert caught.value.errno == errno.EXDEV
    os.close(root)


def test_rename_exchange_and_noreplace(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"f")
    (tmp_path / "dir").mkdir()
    fd = os.open(tmp_path, os.O_RDONLY)
    renameat2(fd, b"file", fd, b"dir", RENAME_EXCHANGE)
    assert (tmp_path / "dir").read_bytes() == b"f"
    with pytest.raises(FileExistsError) as caught:
        renameat2(fd, b"file", fd, b"dir", RENAME_NOREPLACE)
    assert caught.value.filename == b"dir"
    syncfs(fd)
    os.close(fd)


def test_flags_that_are_already_set_are_not_set_again(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    set_flags(fd, get_flags(fd))
    os.close(fd)


def test_check_carries_call_and_path() -> None:
    assert check(7, "nothing") == 7
    with pytest.raises(OSError, match="some call") as caught:
        check(-1, "some call", b"path")
    assert caught.value.filename == b"path"


@pytest.mark.parametrize("have", [True, False])
@pytest.mark.parametrize("proc", [True, False])
def test_xattrs_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, have: bool, proc: bool) -> None:
    if have and not xattr.HAVE_XATTRAT:
        pytest.skip("needs Linux 6.13 for getxattrat")
    monkeypatch.setattr(xattr, "HAVE_XATTRAT", have)
    if not proc:
        monkeypatch.setattr(xattr, "_PROC_FD", b"/nonexistent/%d/%s")
    (tmp_path / "file").write_bytes(b"")
    os.symlink("file", tmp_path / "link")
    fd, here = os.open(tmp_path, os.O_RDONLY), os.getcwd()
    xattr.set_xattr_at(fd, b"file", b"user.b", b"\0\xff")
    xattr.set_xattr_at(fd, b"file", b"user.a", b"")
    assert xattr.read_xattrs_at(fd, b"file") == ((b"user.a", b""), (b"user.b", b"\0\xff"))
    assert xattr.read_xattrs_at(fd, b"link") == ()
    xattr.remove_xattr_at(fd, b"file", b"user.b")
    assert xattr.read_xattrs(os.fsencode(tmp_path / "file")) == ((b"user.a", b""),)
    with pytest.raises(FileNotFoundError):
        xattr.read_xattrs_at(fd, b"missing")
    with pytest.raises(OSError, match="No data"):
        xattr.remove_xattr_at(fd, b"file", b"user.b")
    assert os.getcwd() == here
    os.close(fd)


def test_an_xattr_that_is_removed_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.fsencode(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"")
    os.setxattr(path, b"user.stays", b"1")
    monkeypatch.setattr(os, "listxattr", lambda *_, **__: ["user.stays", "user.gone"])
    assert xattr.read_xattrs(path) == ((b"user.stays", b"1"),)


def test_xattr_thread_starts_anew_after_a_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xattr, "HAVE_XATTRAT", False)
    monkeypatch.setattr(xattr, "_PROC_FD", b"/nonexistent/%d/%s")
    (tmp_path / "file").write_bytes(b"")
    fd = os.open(tmp_path, os.O_RDONLY)
    assert xattr.read_xattrs_at(fd, b"file") == ()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if xattr.read_xattrs_at(fd, b"file") == () else 1)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(fd)


def test_parse_mount() -> None:
    line = rb"36 35 98:0 /mnt1 /mnt\0402\011\134 rw,noatime master:1 shared:2 - ext3 /dev/r\043 rw,errors=continue"
    assert parse_mount(line) == Mount(
        36, 35, "98:0", "/mnt1", "/mnt 2\t\\", "rw,noatime", "ext3", "/dev/r#", "rw,errors=continue"
    )
    bare = parse_mount(b"1 1 0:1 / /\xff rw - tmpfs  rw")
    assert (bare.mountpoint, bare.source, bare.super_options) == ("/\udcff", "", "rw")


def test_read_mounts_shows_proc() -> None:
    assert any(mount.fstype == "proc" for mount in read_mounts())


def test_fstab_is_read_as_mount_reads_it(tmp_path: Path) -> None:
    from snapbreaker.linux.fstab import read_fstab

    path = tmp_path / "fstab"
    path.write_text(
        "# a comment\n\nUUID=1 / btrfs subvol=@,noatime 0 0\n/dev/sdb none swap sw\nLABEL=x /a\\040b ext4\n"
    )
    assert [tuple(line) for line in read_fstab(str(path))] == [
        ("UUID=1", "/", "btrfs", ("subvol=@", "noatime")),
        ("LABEL=x", "/a b", "ext4", ()),
    ]
    assert read_fstab(str(tmp_path / "none")) == []
