"""What a guard has saved, as it lies in the vault: ``guard.log``, and the content in ``saved.0`` and ``saved.1``.

The log has a JSON object a line, each with a checksum before it; a line counts when it is whole. Log and content
are written before the writer that a file was saved from gets it. They are on disk then, too, or soon, where many
are written in a row; a line ``safe`` tells. After a power cut, and where the disk has failed (``broken``), what
was saved later does not count; a file changed later is lost.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from contextlib import suppress
from typing import Any, NamedTuple

from snapbreaker.files.proof import TICK_NS
from snapbreaker.files.tree import Extent
from snapbreaker.linux.process import Identity, boot_id, is_alive

LOG, BEAT = "guard.log", "guard.beat"
PACKS = ("saved.0", "saved.1")
SYNC = 0.1  # s
_NEVER_ENDS = 1 << 127
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
COARSE_NS = 2 * TICK_NS  # a ctime may be that much older than the change


class Saved(NamedTuple):
    """One file as it was before its first writer. ``early``: from before the checkpoint was complete."""

    size: int
    mtime_ns: int
    pack: int
    extents: tuple[Extent, ...]
    early: bool


class Watch(NamedTuple):
    """Until when (CLOCK_REALTIME, ns) no file changed in place unseen. ``proven`` false: that may be later
    than it was really so, since the guard did not end by itself.
    """

    until_ns: int
    orderly: bool


class NoRoom(OSError):
    """A line was not written whole: the filesystem is full. What was written before is not concerned."""


class LogWriter:
    """Appends lines, from any thread. Raises OSError."""

    def __init__(self, vault: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self.fd = os.open(f"{vault}/{LOG}", flags, 0o600)
        self._ahead = b""

    def add(self, **line: Any) -> None:
        """On disk when this returns."""
        self.append(**line)
        os.fdatasync(self.fd)

    def append(self, **line: Any) -> None:
        data = json.dumps(line, separators=(",", ":")).encode()
        whole = b"%s%08x %s\n" % (self._ahead, zlib.crc32(data), data)
        self._ahead = b"\n"  # or what is left of a line that was not written whole would spoil this one
        try:
            written = os.write(self.fd, whole)
        except OSError as error:
            if error.errno in _FULL:
                raise NoRoom(error.errno, error.strerror) from error
            raise
        if written != len(whole):
            raise NoRoom(errno.ENOSPC, "the log of saved files could not be written whole")

    def close(self) -> None:
        os.close(self.fd)


class SavedFiles:
    """The reader's side. Reads on when it is asked for something that it does not know yet: the guard may be
    at work.

    ``lost`` are inodes that changed in place with nothing saved, with the reason. ``broken``: the disk has failed.
    """

    def __init__(self, vault: str) -> None:
        self._vault = vault
        self._files: dict[int, Saved] = {}
        self.lost: dict[int, str] = {}
        self.begun: dict[str, Any] = {}
        self._ready = False
        self._end: int | None = None
        self._safe = 0
        self._place: dict[int, int] = {}  # of those that were saved, in which order
        self._on_disk = 0  # so many of them
        self.broken = False
        self._packs: dict[int, int] = {}
        self._rest = b""
        self._log = -1
        with suppress(FileNotFoundError):
            self._log = os.open(f"{vault}/{LOG}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._read_on()

    def get(self, inode: int) -> Saved | None:
        if inode not in self._files and self._end is None:
            self._read_on()
        return self._files.get(inode) if self._counts(inode) else None

    def _counts(self, inode: int) -> bool:
        """Whether what was saved of it is on disk, or still in memory."""
        return not self._is_cut_off or self._place.get(inode, self._on_disk) < self._on_disk

    @property
    def _is_cut_off(self) -> bool:
        return self.broken or (bool(self.begun) and self.begun["boot"] != boot_id())

    @property
    def early(self) -> dict[int, Saved]:
        """Those that were saved while the checkpoint was being made."""
        self._read_on()
        return {inode: saved for inode, saved in self._files.items() if saved.early and self._counts(inode)}

    def pack(self, number: int) -> int:
        """The descriptor of a pack; it stays ours. Raises OSError."""
        if number not in self._packs:
            path = f"{self._vault}/{PACKS[number]}"
            self._packs[number] = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return self._packs[number]

    def close(self) -> None:
        for fd in (self._log, *self._packs.values()):
            if fd >= 0:
                os.close(fd)
        self._log, self._packs = -1, {}

    @property
    def guardian(self) -> Identity | None:
        """The guard's process, when it may still be there."""
        if not self.begun or self.begun["boot"] != boot_id():
            return None
        return Identity(self.begun["pid"], self.begun["start"])

    @property
    def watchdog(self) -> Identity | None:
        """That of the guard, likewise."""
        return None if self.guardian is None else Identity(*self.begun["watchdog"])

    def watch(self) -> Watch:
        self._read_on()
        if not self.begun:
            return Watch(0, False)
        if self._is_cut_off:
            return Watch(self._safe - COARSE_NS, True)
        if self._end is not None:
            return Watch(self._end - COARSE_NS, True)
        guardian = self.guardian
        if guardian is not None and is_alive(guardian):
            return Watch(_NEVER_ENDS, True)
        self._read_on()  # it may have ended just now
        if self._end is not None:
            return Watch(self._end - COARSE_NS, True)
        return Watch(_last_beat(self._vault) - COARSE_NS, False)

    def _read_on(self) -> None:
        if self._log < 0:
            return
        while data := os.read(self._log, 1 << 20):
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            with suppress(ValueError):
                checksum, _, text = line.partition(b" ")
                if int(checksum, 16) == zlib.crc32(text):
                    self._take(json.loads(text))

    def _take(self, line: dict[str, Any]) -> None:
        if "inode" in line:
            extents = tuple(Extent(*one) for one in line["extents"])
            saved = Saved(line["size"], line["mtime_ns"], line["pack"], extents, not self._ready)
            if line["inode"] not in self._files:
                self._files[line["inode"]] = saved
                self._place[line["inode"]] = len(self._place)
        elif "lost" in line:
            self.lost[line["lost"]] = line["why"]
        elif "ready" in line:
            self._ready = True
        elif "safe" in line:
            self._safe, self._on_disk = line["safe"], line["saved"]
        elif "broken" in line:
            self.broken = True
        elif "end" in line:
            self._end = line["end"]
        else:
            self.begun = line


def _last_beat(vault: str) -> int:
    try:
        with open(f"{vault}/{BEAT}", "rb") as file:
            return int.from_bytes(file.read(8), "little")
    except OSError:
        return 0
