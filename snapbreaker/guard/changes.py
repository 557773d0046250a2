"""What was changed in place without anybody being asked before: truncate(2) by path, where the kernel cannot ask.

The guard's own group has descriptors for events, and such a group does not hear of changes by path. This second
group hears of every change, but only afterwards; it tells the inode.
"""

from __future__ import annotations

import os

from snapbreaker.linux.fanotify import (
    FAN_CLASS_NOTIF,
    FAN_CLOEXEC,
    FAN_MARK_ADD,
    FAN_MARK_FILESYSTEM,
    FAN_MODIFY,
    FAN_NONBLOCK,
    FAN_REPORT_FID,
    FAN_UNLIMITED_MARKS,
    FAN_UNLIMITED_QUEUE,
    fanotify_init,
    fanotify_mark,
    parse_handles,
)
from snapbreaker.linux.handles import inode_of

_GROUP = FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_FID | FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS
_BUFFER = 1 << 16


def open_changes(mountpoint: str) -> int:
    """A group that is told of every change of content on the filesystem. Raises OSError."""
    group = fanotify_init(_GROUP, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_MODIFY, mountpoint)
    except OSError:
        os.close(group)
        raise
    return group


def changed_inodes(group: int) -> set[int]:
    """The inodes of all changes that were not yet told; the queue is empty afterwards. Raises OSError."""
    inodes: set[int] = set()
    try:
        while data := os.read(group, _BUFFER):
            inodes.update(inode for handle in parse_handles(data) if (inode := inode_of(handle)) is not None)
    except BlockingIOError:
        pass
    return inodes
