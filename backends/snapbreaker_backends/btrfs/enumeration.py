"""Which subvolumes lie below a directory: asked of the kernel, or of libbtrfsutil where the kernel is too old."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

from snapbreaker.linux import btrfs
from snapbreaker.linux.btrfs import Nested

try:
    btrfsutil: Any = import_module("btrfsutil")
except ImportError:  # an optional extra; also an installed one that does not fit the machine's library
    btrfsutil = None

_MISSING = {errno.ENOTTY, errno.ENOSYS, errno.EOPNOTSUPP}

LeaveOut = Callable[[bytes], bool]


def nested_subvolumes(fd: int, leave_out: LeaveOut) -> list[Nested]:
    """See ``snapbreaker.linux.btrfs.nested_subvolumes``, which needs Linux 4.18; before that by btrfsutil."""
    try:
        return btrfs.nested_subvolumes(fd, leave_out)
    except OSError as error:
        if error.errno not in _MISSING or btrfsutil is None:
            raise
    return nested_by_library(fd, leave_out)


def nested_by_library(fd: int, leave_out: LeaveOut) -> list[Nested]:
    """The same out of libbtrfsutil, which searches the tree of tree roots (needs root)."""
    found: list[Nested] = []
    with btrfsutil.SubvolumeIterator(fd) as subvolumes:
        for text, identity in subvolumes:
            path = os.fsencode(text)
            if any(leave_out(path[:end]) for end in _prefixes(path)):
                continue
            child = btrfs.open_subvolume(fd, path, identity)  # None: something is mounted over it
            if child is not None:
                found.append(Nested(path, identity, btrfs.is_read_only(child)))
                os.close(child)
    return sorted(found, key=lambda nested: nested.path.split(b"/"))


def _prefixes(path: bytes) -> list[int]:
    return [index for index, octet in enumerate(path) if octet == 0x2F] + [len(path)]
