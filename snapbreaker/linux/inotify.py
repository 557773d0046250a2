"""Changes in directories as something to poll: inotify(7)."""

from __future__ import annotations

import os
import struct
from ctypes import c_char_p, c_int, c_uint32

from snapbreaker.linux.libc import check, function

IN_MODIFY, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x2, 0x40, 0x80, 0x100, 0x200
_IN_ONLYDIR = 0x0100_0000
_HEAD = struct.Struct("=iIII")  # struct inotify_event
_init = function("inotify_init1", c_int)
_add = function("inotify_add_watch", c_int, c_char_p, c_uint32)


class Inotify:
    """One inotify instance; ``fd`` is readable when something happened. Raises OSError."""

    def __init__(self) -> None:
        self.fd = check(_init(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")

    def watch(self, directory: str) -> int:
        """Hear of entries of ``directory`` that are written to, made, renamed or removed; its number in events."""
        wanted = IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | _IN_ONLYDIR
        return check(_add(self.fd, os.fsencode(directory), wanted), "inotify_add_watch", directory)

    def take(self) -> set[tuple[int, bytes]]:
        """What happened since the last call: number of the directory and name (empty: the directory itself)."""
        found: set[tuple[int, bytes]] = set()
        while data := self._read():
            start = 0
            while start < len(data):
                number, _mask, _cookie, size = _HEAD.unpack_from(data, start)
                start += _HEAD.size + size
                found.add((number, data[start - size : start].rstrip(b"\0")))
        return found

    def _read(self) -> bytes:
        try:
            return os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return b""
