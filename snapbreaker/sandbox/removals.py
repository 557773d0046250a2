"""What others remove on a filesystem while a sandbox is used: afterwards nothing that is there tells of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import suppress

from snapbreaker.backend import Volume
from snapbreaker.linux.fanotify import (
    FAN_CLASS_NOTIF,
    FAN_CLOEXEC,
    FAN_DELETE,
    FAN_MARK_ADD,
    FAN_MARK_FILESYSTEM,
    FAN_MOVED_FROM,
    FAN_NONBLOCK,
    FAN_ONDIR,
    FAN_REPORT_DFID_NAME,
    fanotify_init,
    fanotify_mark,
    mark_inode,
    parse_names,
)
from snapbreaker.linux.handles import Handle
from snapbreaker.linux.mount import detached_mount

# The kernel keeps up to 16,384 events by itself (fs.fanotify.max_queued_events): nobody needs to read meanwhile.
_GROUP = FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_DFID_NAME
_EVENTS = FAN_DELETE | FAN_MOVED_FROM | FAN_ONDIR
_BUFFER = 1 << 16

Name = tuple[Handle, bytes]  # of a directory, and a name in it


class Removals:
    """Names that were removed, or renamed away, on some filesystems since ``watch``.

    Nothing is known where the kernel cannot watch (as another user than root; Linux before 5.9), or where more was
    removed than it keeps in its queue.
    """

    def __init__(self) -> None:
        self._group = -1

    def watch(self, volumes: Iterable[Volume]) -> None:
        """Begin."""
        try:
            self._group = fanotify_init(_GROUP, os.O_RDONLY | os.O_CLOEXEC)
            for volume in volumes:
                self._watch(volume)
        except OSError:
            self.close()

    def _watch(self, volume: Volume) -> None:
        try:
            fanotify_mark(self._group, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, _EVENTS, volume.root)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # A subvolume of btrfs (fanotify_test_fsid in fs/notify/fanotify): the top level stands for all.
            with detached_mount(volume.fstype, volume.source, {"subvolid": "5"}) as top:
                mark_inode(self._group, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, _EVENTS, top)

    def taken(self) -> frozenset[Name] | None:
        """All of them, and no more are noted; None: not known. Raises OSError."""
        if self._group < 0:
            return None
        names: set[Name] = set()
        try:
            while True:
                names.update(parse_names(os.read(self._group, _BUFFER)))
        except BlockingIOError:
            return frozenset(names)
        except OverflowError:
            return None
        finally:
            self.close()

    def close(self) -> None:
        """Idempotent."""
        if self._group >= 0:
            with suppress(OSError):
                os.close(self._group)
        self._group = -1
