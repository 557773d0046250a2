"""Events of fanotify and of forks as the kernel writes them, and what went wrong in words."""

from __future__ import annotations

import errno
import struct

import pytest

from snapbreaker.linux.fanotify import FAN_CLOSE_WRITE, FAN_NOFD, FAN_Q_OVERFLOW, Event, explain, parse_events
from snapbreaker.linux.proc_events import Fork, parse_fork


def packed(mask: int, fd: int, pid: int, more: bytes = b"", version: int = 3) -> bytes:
    return struct.pack("=IBBHQii", 24 + len(more), version, 0, 24, mask, fd, pid) + more


def test_events() -> None:
    data = packed(FAN_CLOSE_WRITE, 7, 1234) + packed(FAN_Q_OVERFLOW, FAN_NOFD, 0)
    assert parse_events(data) == [Event(FAN_CLOSE_WRITE, 7, 1234), Event(FAN_Q_OVERFLOW, -1, 0)]
    assert parse_events(b"") == []


def test_what_follows_an_event_is_skipped() -> None:
    data = packed(FAN_CLOSE_WRITE, 7, 1, b"12345678") + packed(FAN_CLOSE_WRITE, 8, 2)
    assert [event.fd for event in parse_events(data)] == [7, 8]


def test_another_version() -> None:
    with pytest.raises(ValueError, match="version 4"):
        parse_events(packed(FAN_CLOSE_WRITE, 7, 1, version=4))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSYS, "no fanotify"),
        (errno.EPERM, "CAP_SYS_ADMIN"),
        (errno.EMFILE, "too many"),
        (errno.EINVAL, "4.20"),
        (errno.EIO, "a reason"),
    ],
)
def test_reasons(number: int, words: str) -> None:
    assert words in explain(OSError(number, "a reason"))


def message(what: int, child: int, child_process: int) -> bytes:
    """struct nlmsghdr, cn_msg and proc_event; seen on Linux 6.18."""
    event = struct.pack("=IIQiiii", what, 1, 2_022_650_815_656, 1950, 1950, child, child_process)
    body = struct.pack("=IIIIHH", 1, 1, 1, 0, 40, 0) + event
    return struct.pack("=IHHII", 16 + len(body), 3, 0, 0, 0) + body


def test_forks() -> None:
    assert parse_fork(message(1, 2014, 2014)) == Fork(1950, 2014, 2_022_650_815_656)
    assert parse_fork(message(1, 2015, 2014)) is None  # a thread
    assert parse_fork(message(0x80000000, 2014, 2014)) is None  # an exit
    assert parse_fork(message(0, 0, 0)[:40]) is None
