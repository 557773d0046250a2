"""Single cases of a restore: what is kept, what is in the way, who is in the way, no space."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snapbreaker.errors import RestoreError
from snapbreaker.files import ops
from snapbreaker.files.diff import diff
from snapbreaker.files.live import LiveTree
from snapbreaker.files.manifest import ManifestTree
from snapbreaker.files.policy import PathClass, Policy
from snapbreaker.files.proof import Proof
from snapbreaker.files.restore import Restored, restore
from snapbreaker.files.room import RESERVE
from snapbreaker.files.stage import Stage
from snapbreaker.linux.inode import RENAME_EXCHANGE, renameat2
from tests import comparer
from tests.fs.checkpointed import Checkpointed
from tests.fs.conftest import MakeFilesystem
from tests.fs.recording import record, recorded
from tests.lab import inodes, subvolumes
from tests.lab.loopfs import LoopFilesystem


class Case:
    def __init__(self, filesystem: LoopFilesystem, tmp_path: Path, policy: Policy | None = None) -> None:
        self.root, self.vault = filesystem.path / "scope", filesystem.path / ".snapbreaker/1-x/0"
        self.root.mkdir()
        self.vault.mkdir(parents=True)
        self.tmp_path, self.policy = tmp_path, policy or Policy()

    def record(self) -> None:
        self.before = comparer.snapshot(self.root)
        with LiveTree(str(self.root), self.policy) as live:
            record(live, self.tmp_path)

    @contextmanager
    def old(self) -> Iterator[ManifestTree]:
        with recorded(self.tmp_path) as old:
            assert isinstance(old, ManifestTree)
            yield old

    def restore(self, make_room: bool = False) -> Restored:
        with self.old() as old, LiveTree(str(self.root), self.policy) as live:
            changes = list(diff(old, live, self.policy, Proof.none()))
            return restore(old, live, changes, Stage(str(self.vault)), make_room=make_room)

    def differences(self, *but: bytes) -> list[str]:
        found = comparer.differences(self.before, comparer.snapshot(self.root))
        return [line for line in found if not any(repr(path) in line for path in but)]


def test_added_directory_with_a_kept_path_stays(ext4: LoopFilesystem, tmp_path: Path) -> None:
    case = Case(ext4, tmp_path, Policy(((b"made/data/kept", PathClass.KEEP),)))
    (case.root / "file").write_text("before")
    case.record()
    (case.root / "made/data/kept").mkdir(parents=True)
    (case.root / "made/data/kept/precious").write_text("kept")
    (case.root / "made/data/other").write_text("of the run")
    restored = case.restore()
    assert {failure.path for failure in restored.failures} == {b"made", b"made/data"}
    assert (case.root / "made/data/kept/precious").read_text() == "kept"
    assert not (case.root / "made/data/other").exists()


def test_kept_content_stays_and_the_rest_comes_back(ext4: LoopFilesystem, tmp_path: Path) -> None:
    case = Case(ext4, tmp_path, Policy(((b"log", PathClass.KEEP_CONTENT),)))
    (case.root / "log").mkdir()
    (case.root / "log/a").write_text("one line\n")
    os.link(case.root / "log/a", case.root / "log/b")
    case.record()
    with open(case.root / "log/a", "a") as log:
        log.write("another\n")
    (case.root / "log/a").chmod(0o777)
    (case.root / "log/made").write_text("of the run")
    assert case.restore().failures == ()
    assert (case.root / "log/a").read_text() == "one line\nanother\n"
    assert (case.root / "log/a").stat().st_mode & 0o777 == 0o644
    assert (case.root / "log/a").samefile(case.root / "log/b")
    assert not (case.root / "log/made").exists()


def test_a_mount_in_an_added_directory_is_not_moved(ext4: LoopFilesystem, tmp_path: Path) -> None:
    case = Case(ext4, tmp_path)
    case.record()
    (case.root / "made/point").mkdir(parents=True)
    (ext4.path / "treasure").mkdir()
    (ext4.path / "treasure/file").write_text("mounted")
    subprocess.run(["mount", "--bind", ext4.path / "treasure", case.root / "made/point"], check=True)
    try:
        restored = case.restore()
        assert [failure.path for failure in restored.failures] == [b"made"]
        assert (case.root / "made/point/file").read_text() == "mounted"
    finally:
        subprocess.run(["umount", case.root / "made/point"], check=True)
    assert case.restore().failures == ()
    assert case.differences() == []


SMALL = {"ext4": 64 << 20, "xfs": 320 << 20, "btrfs": 192 << 20}


def test_no_space_changes_nothing(make_filesystem: MakeFilesystem, tmp_path: Path) -> None:
    case, after = _full(make_filesystem("ext4", SMALL["ext4"]), tmp_path)
    with pytest.raises(RestoreError, match="space"):
        case.restore()
    assert comparer.differences(after, comparer.snapshot(case.root)) == []
    assert list(case.vault.iterdir()) == []


def test_no_space_for_the_slots_but_for_the_reserve(
    ext4: LoopFilesystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(ext4, tmp_path)
    (case.root / "file").write_text("before")
    case.record()
    (case.root / "file").write_text("after")
    (case.vault / RESERVE).write_bytes(bytes(4096))

    def full(operation: str, name: bytes) -> None:
        if name == b"slots" and (case.vault / RESERVE).exists():
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ops, "before", full)
    assert case.restore().failures == ()
    assert case.differences() == []


@pytest.mark.parametrize("fstype", SMALL)
def test_room_is_made_by_what_the_run_added(make_filesystem: MakeFilesystem, fstype: str, tmp_path: Path) -> None:
    case, _ = _full(make_filesystem(fstype, SMALL[fstype]), tmp_path)
    restored = case.restore(make_room=True)
    assert restored.failures == ()
    assert case.differences() == []
    assert restored.deleted == (b"junk",)


def _full(filesystem: LoopFilesystem, tmp_path: Path) -> tuple[Case, dict[bytes, comparer.Facts]]:
    case = Case(filesystem, tmp_path)
    (case.root / "file").write_bytes(os.urandom(20 << 20))
    case.record()
    (case.root / "file").write_bytes(b"overwritten")
    for name, octets in (("junk", 1 << 20), ("small", 4096)):
        with pytest.raises(OSError, match="space"):
            _fill(case.root / name, octets)
    os.sync()
    return case, comparer.snapshot(case.root)


def _fill(path: Path, octets: int) -> None:
    with open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(octets))


def test_nobody_leads_it_out_of_the_tree(ext4: LoopFilesystem, tmp_path: Path) -> None:
    """Somebody swaps a directory with a symbolic link to another one, all the while."""
    case = Case(ext4, tmp_path)
    outside = ext4.path / "outside"
    outside.mkdir()
    (case.root / "home").mkdir()
    for number in range(40):
        (case.root / f"home/file{number}").write_text("before")
        (outside / f"file{number}").write_text("not in scope")
    case.record()
    untouched = comparer.snapshot(outside)
    (ext4.path / "trap").symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        here = os.open(ext4.path, os.O_RDONLY)
        while not stop.is_set():
            renameat2(here, b"trap", here, b"scope/home", RENAME_EXCHANGE)
        os.close(here)

    for _ in range(3):
        for number in range(40):
            (case.root / f"home/file{number}").write_text("after")
        thread = threading.Thread(target=swap)
        thread.start()
        try:
            for _ in range(5):
                case.restore()
        finally:
            stop.set()
            thread.join()
            stop.clear()
        assert comparer.differences(untouched, comparer.snapshot(outside)) == []
        if (case.root / "home").is_symlink():
            (ext4.path / "trap").rename(ext4.path / "spare")
            (case.root / "home").rename(ext4.path / "trap")
            (ext4.path / "spare").rename(case.root / "home")
        case.restore()
        assert case.differences() == []


def test_a_file_exchanged_meanwhile_is_not_changed(ext4: LoopFilesystem, tmp_path: Path) -> None:
    """A name that suddenly is a link to another file: that file's mode and owner stay what they are."""
    case = Case(ext4, tmp_path)
    (case.root / "file").write_text("before")
    case.record()
    (case.root / "file").chmod(0o777)
    secret = ext4.path / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    fired: list[str] = []

    def before(operation: str, name: bytes) -> None:
        if operation == "syncfs" and not fired:
            fired.append(operation)
            (case.root / "file").unlink()
            os.link(secret, case.root / "file")

    ops.before = before
    try:
        restored = case.restore()
    finally:
        ops.before = None
    assert [failure.path for failure in restored.failures] == [b"file"]
    assert secret.stat().st_mode & 0o777 == 0o600
    assert case.restore().failures == ()
    assert case.differences() == []


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
def test_project_ids_that_directories_hand_down(
    make_filesystem: MakeFilesystem, fstype: str, tmp_path: Path
) -> None:
    filesystem = make_filesystem(fstype)
    if not filesystem.projects:
        pytest.skip("this kernel keeps no project ids on ext4: mount one with CONFIG_QFMT_V2")
    case = Case(filesystem, tmp_path)
    home = case.root / "home"
    home.mkdir()
    inodes.set_project(home, 42)
    inodes.add_flags(home, 0x20000000)
    for name in ("inherits", "own"):
        (home / name).write_text("before")
    inodes.set_project(home / "own", 7)
    (home / "link").symlink_to("inherits")
    os.mkfifo(home / "fifo")
    (home / "below").mkdir()
    case.record()
    for name in ("inherits", "own"):
        (home / name).write_text("after")
    for name in ("link", "fifo"):
        (home / name).unlink()
    (home / "below").rmdir()
    (home / "made").write_text("after")
    assert case.restore().failures == ()
    assert case.differences() == []


def test_a_split_link_is_split_again(xfs: LoopFilesystem, tmp_path: Path) -> None:
    """Of a file that stays where it is, and gets its other name back, the directory's mtime must be known too."""
    root = xfs.path / "scope"
    (root / "directory").mkdir(parents=True)
    (root / "directory/file").write_text("the same")
    os.link(root / "directory/file", root / "link")
    checkpoint = Checkpointed(root, tmp_path)
    checkpoint.begin()
    times = os.stat(root / "directory"), os.stat(root / "directory/file")
    (root / "directory/file").unlink()
    (root / "directory/file").write_text("the same")
    for path, facts in zip((root / "directory", root / "directory/file"), times, strict=True):
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    after = comparer.snapshot(root)
    checkpoint.commit()
    assert checkpoint.undo().verified
    assert checkpoint.redo().verified
    assert comparer.differences(after, comparer.snapshot(root)) == []
    checkpoint.discard()


def test_slots_deep_in_a_subvolume_leave_no_trace_at_its_top(btrfs: LoopFilesystem, tmp_path: Path) -> None:
    root = btrfs.path / "scope"
    root.mkdir()
    subvolumes.create(root / "volume")
    (root / "volume/a/b").mkdir(parents=True)
    before = comparer.snapshot(root)
    checkpoint = Checkpointed(root, tmp_path)
    checkpoint.begin()
    (root / "volume/a/b/made").write_text("after")
    checkpoint.commit()
    assert checkpoint.undo().verified
    assert comparer.differences(before, comparer.snapshot(root)) == []
    checkpoint.discard()
