"""The times of files: how fine they are, and adding to a directory without a trace in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def times_kept(directory: str) -> Iterator[int]:
    """A descriptor of ``directory``, whose mtime is afterwards what it was. Its ctime moves."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        before = os.fstat(fd)
        yield fd
        if os.fstat(fd).st_mtime_ns != before.st_mtime_ns:
            os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
    finally:
        os.close(fd)


def are_fine(directory: str) -> bool:
    """Whether the filesystem of ``directory`` keeps nanoseconds. An ext4 with inodes of 128 bytes, as every small
    one once got (mke2fs.conf(5)), keeps seconds (s_time_gran in fs/ext4/super.c). False also where it cannot be
    told.
    """
    odd = 1_123_456_789
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        os.utime(fd, ns=(odd, odd))
        return os.fstat(fd).st_mtime_ns == odd
    finally:
        os.close(fd)
