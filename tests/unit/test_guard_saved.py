"""What a guard's log says to those who read it: while it lives, after it, and after a power cut."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from snapbreaker.guard import saved
from snapbreaker.guard.saved import LogWriter, NoRoom, SavedFiles
from snapbreaker.guard.saver import Saver
from snapbreaker.linux.process import boot_id, identify

SECOND = 1_000_000_000


@pytest.fixture
def log(tmp_path: Path) -> LogWriter:
    return LogWriter(str(tmp_path))


def begin(log: LogWriter, boot: str = "") -> None:
    me = identify(1)
    assert me is not None
    log.add(pid=me.pid, start=me.start, boot=boot or boot_id(), mask=0, watchdog=me)


def save(log: LogWriter, inode: int) -> None:
    log.append(inode=inode, size=3, mtime_ns=1, pack=0, extents=[[0, 0, 3]])


def test_while_it_lives(log: LogWriter, tmp_path: Path) -> None:
    begin(log)
    files = SavedFiles(str(tmp_path))
    assert files.get(7) is None
    save(log, 7)
    assert files.get(7) is not None
    assert files.watch().until_ns > 1 << 64
    assert files.watch().orderly


def test_after_its_end(log: LogWriter, tmp_path: Path) -> None:
    begin(log)
    save(log, 7)
    log.add(end=5 * SECOND)
    files = SavedFiles(str(tmp_path))
    assert files.get(7) is not None
    assert files.watch() == saved.Watch(5 * SECOND - saved.COARSE_NS, True)


def test_after_a_power_cut_only_what_was_on_disk_counts(log: LogWriter, tmp_path: Path) -> None:
    begin(log, boot="another boot")
    save(log, 7)
    save(log, 8)
    log.add(safe=5 * SECOND, saved=1)
    save(log, 9)
    files = SavedFiles(str(tmp_path))
    assert files.get(7) is not None
    assert files.get(8) is None
    assert files.get(9) is None
    assert files.watch() == saved.Watch(5 * SECOND - saved.COARSE_NS, True)


def test_a_torn_line_is_none(log: LogWriter, tmp_path: Path) -> None:
    begin(log)
    save(log, 7)
    save(log, 8)
    whole = (tmp_path / saved.LOG).read_bytes()
    (tmp_path / saved.LOG).write_bytes(whole[:-5])
    files = SavedFiles(str(tmp_path))
    assert files.get(7) is not None
    assert files.get(8) is None


def test_a_line_for_which_there_was_no_room_spoils_no_other(log: LogWriter, tmp_path: Path) -> None:
    begin(log)
    save(log, 7)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / saved.LOG).stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(NoRoom):
            save(log, 8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.add(lost=9, why="it was changed unseen")
    files = SavedFiles(str(tmp_path))
    assert files.get(7) is not None
    assert files.get(8) is None
    assert files.lost == {9: "it was changed unseen"}


def test_what_is_lost_is_said(log: LogWriter, tmp_path: Path) -> None:
    begin(log)
    log.add(lost=7, why="it was changed unseen")
    assert SavedFiles(str(tmp_path)).lost == {7: "it was changed unseen"}


def test_after_the_disk_has_failed_only_what_was_on_it_counts(log: LogWriter, tmp_path: Path) -> None:
    begin(log)
    save(log, 7)
    log.add(safe=5 * SECOND, saved=1)
    save(log, 8)
    log.add(broken=True)
    log.add(end=9 * SECOND)
    files = SavedFiles(str(tmp_path))
    assert files.get(7) is not None
    assert files.get(8) is None
    assert files.watch().until_ns < 5 * SECOND


def test_a_sync_that_failed_is_never_made_good(
    log: LogWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of it once; the next sync succeeds, with the data lost."""
    begin(log)
    saver = Saver(str(tmp_path), log, lambda inode, error: None)
    (tmp_path / "file").write_text("before")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    saver._store(0, 7, fd, 0)
    os.close(fd)

    def fails(fd: int) -> None:
        monkeypatch.undo()
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fails)
    with pytest.raises(OSError, match="Input/output error"):
        saver.sync()
    saver.sync()
    assert b"safe" not in (tmp_path / saved.LOG).read_bytes()
    assert SavedFiles(str(tmp_path)).get(7) is None
