"""Log files are followed from the start of a run on, whatever is done to them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from snapbreaker.sources.tail import AT_ONCE, CHUNK, Tail


def follow(path: Path) -> Tail:
    return Tail(str(path), time.time() - 1)


def read(tail: Tail) -> bytes:
    return b"".join(tail.read())


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_only_what_is_written_from_now_on(log: Path) -> None:
    log.write_bytes(b"old\n")
    tail = follow(log)
    assert read(tail) == b""
    append(log, b"new\n")
    assert read(tail) == b"new\n"
    assert read(tail) == b""


def test_a_file_that_comes_later(log: Path) -> None:
    tail = follow(log)
    assert read(tail) == b""
    log.write_bytes(b"one\n")
    assert read(tail) == b"one\n"


def test_a_rotated_file_is_read_to_its_end_and_then_the_new_one(log: Path) -> None:
    tail = follow(log)
    log.write_bytes(b"1\n")
    assert read(tail) == b"1\n"
    append(log, b"2\n")
    log.rename(log.with_suffix(".1"))
    append(log.with_suffix(".1"), b"3\n")
    log.write_bytes(b"4\n")
    assert read(tail) == b"2\n3\n4\n"
    append(log.with_suffix(".1"), b"late\n")  # the writer opens the new one when it is told to
    append(log, b"5\n")
    assert read(tail) == b"late\n5\n"


def test_many_rotations_keep_few_files_open(log: Path) -> None:
    tail = follow(log)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        log.write_bytes(b"%d\n" % number)
        assert read(tail) == b"%d\n" % number
        log.rename(log.with_suffix(f".{number}"))
    assert len(os.listdir("/proc/self/fd")) - before <= 5


@pytest.mark.parametrize("text", [b"a\n", b"another text that is longer than what was there\n"])
def test_a_truncated_file(log: Path, text: bytes) -> None:
    """Copytruncate. Also where it has grown beyond our place before we look."""
    tail = follow(log)
    append(log, b"first and second\n")
    assert read(tail) == b"first and second\n"
    os.truncate(log, 0)
    append(log, text)
    assert read(tail) == text


def test_a_file_of_before_that_is_truncated(log: Path) -> None:
    """And has grown beyond its old size before we look for the first time."""
    log.write_bytes(b"old\n" * 10)
    tail = follow(log)
    log.write_bytes(b"ERROR: first\n" + b"new\n" * 20)
    assert read(tail) == b"ERROR: first\n" + b"new\n" * 20


@pytest.mark.parametrize("behind", [1.5, 3600.0])
def test_a_new_file_whose_time_is_behind_our_clock(
    log: Path, monkeypatch: pytest.MonkeyPatch, behind: float
) -> None:
    """Coarse times (FAT), or the clock was set back since the run began."""
    began = time.time()
    tail = Tail(str(log), began)
    log.write_bytes(b"new\n")
    os.utime(log, (began - behind, began - behind))
    if behind > 2:
        monkeypatch.setattr(time, "time", lambda: began - behind)
    assert read(tail) == b"new\n"


def test_a_log_without_end_does_not_keep_us_from_the_rest(log: Path) -> None:
    """And what was rotated meanwhile is read all the same, each file in its turn."""
    tail = follow(log)
    log.write_bytes(b"1" * (AT_ONCE + CHUNK))
    first = read(tail)
    assert len(first) == AT_ONCE
    assert tail.behind
    log.rename(log.with_suffix(".1"))
    log.write_bytes(b"2\n")
    assert read(tail) == b"1" * CHUNK + b"2\n"
    assert not tail.behind


def test_what_was_written_before_and_is_moved_there_is_old(log: Path) -> None:
    other = log.with_name("other")
    other.write_bytes(b"ERROR: of last week\n")
    os.utime(other, (1, 1))
    tail = follow(log)
    other.rename(log)
    assert read(tail) == b""
    append(log, b"new\n")
    assert read(tail) == b"new\n"


def test_a_link_to_an_older_file_is_followed_from_where_that_ended(log: Path) -> None:
    """Whether it pointed there from the beginning or was set anew."""
    for number in (1, 2):
        log.with_name(f"{number}.log").write_bytes(b"ERROR: of last week\n")
    log.symlink_to("1.log")
    tail = follow(log)
    append(log, b"one\n")
    assert read(tail) == b"one\n"
    append(log.with_name("2.log"), b"two\n")
    log.unlink()
    log.symlink_to("2.log")
    assert read(tail) == b"two\n"
    append(log, b"three\n")
    append(log.with_name("1.log"), b"late\n")
    assert read(tail) == b"late\nthree\n"
    log.unlink()
    log.write_bytes(b"a file of its own\n")
    assert read(tail) == b"a file of its own\n"


def test_an_older_file_beside_it_that_takes_its_name(log: Path) -> None:
    other = log.with_name("other")
    other.write_bytes(b"ERROR: of last week\n")
    tail = follow(log)
    append(other, b"new\n")
    other.rename(log)
    assert read(tail) == b"new\n"


@pytest.mark.parametrize("size", [100, 70_000, 1 << 40])
def test_a_writer_that_keeps_its_place_in_a_file_that_was_truncated(log: Path, size: int) -> None:
    """Copytruncate of a file that is not open for appending: what was there is a hole."""
    with log.open("wb") as file:
        file.write(b"one\n")
        file.flush()
        tail = follow(log)
        file.truncate(size)
        file.seek(size)
        file.write(b"two\n")
        file.flush()
        assert read(tail) == b"two\n"
        file.truncate(0)
        file.write(b"three\n")
        file.flush()
        assert read(tail) == b"three\n"
        file.truncate(0)
        assert read(tail) == b""
        file.truncate(size)
        assert read(tail) == b""
        file.write(b"four\nfive\n")
        file.flush()
        assert read(tail) == b"four\nfive\n"


@pytest.mark.parametrize("kind", ["fifo", "directory", "dangling", "unreadable directory"])
def test_no_file_is_waited_for(log: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(log)
    elif kind == "directory":
        log.mkdir()
    elif kind == "dangling":
        log.symlink_to("nowhere")
    tail = Tail(str(log / "below" if kind == "unreadable directory" else log), time.time())
    assert read(tail) == b""
