"""The systemd journal, read by its own library: sd-journal(3). No program is run, so it works on a broken machine.

Its functions return a negative errno. The library is loaded when the first Journal is opened.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint64, c_void_p
from functools import cache

from snapbreaker.linux.libc import failure

LIBRARY = "libsystemd.so.0"
_SYNCHRONIZE = "/run/systemd/journal/io.systemd.journal"
_LOCAL_ONLY = 1
_FUNCTIONS: Mapping[str, tuple[object, ...]] = {
    "open": (POINTER(c_void_p), c_int),
    "close": (c_void_p,),
    "get_fd": (c_void_p,),
    "process": (c_void_p,),
    "seek_head": (c_void_p,),
    "seek_tail": (c_void_p,),
    "next": (c_void_p,),
    "previous": (c_void_p,),
    "previous_skip": (c_void_p, c_uint64),
    "add_match": (c_void_p, c_char_p, c_size_t),
    "get_data": (c_void_p, c_char_p, POINTER(c_void_p), POINTER(c_size_t)),
}


@cache
def _library() -> ctypes.CDLL:
    """Raises OSError where libsystemd is not installed."""
    library = ctypes.CDLL(LIBRARY)
    for name, arguments in _FUNCTIONS.items():
        getattr(library, f"sd_journal_{name}").argtypes = arguments
    for name in ("libzstd.so.1", "liblz4.so.1", "liblzma.so.5"):  # newer versions load them for a long message
        with suppress(OSError):
            ctypes.CDLL(name)
    return library


class Journal:
    """The machine's journal at one place. Methods raise OSError."""

    def __init__(self, match: str = "") -> None:
        """``match``: only entries with this ``FIELD=value``."""
        self._library, self._handle = _library(), c_void_p()
        self._check(self._library.sd_journal_open(byref(self._handle), _LOCAL_ONLY), "open")
        if match:
            data = os.fsencode(match)
            self._call("add_match", data, len(data))

    def close(self) -> None:
        self._library.sd_journal_close(self._handle)
        self._handle = c_void_p()

    def fd(self) -> int:
        """A descriptor that is readable when there may be new entries."""
        return self._call("get_fd")

    def to_end(self) -> None:
        """``read`` gives what is logged from now on."""
        self._call("seek_tail")
        if not self._call("previous"):  # empty, and the tail of an empty one has no next entry: sd_journal_next(3)
            self._call("seek_head")

    def to_last(self, count: int) -> None:
        """``read`` gives the last ``count`` entries."""
        self._call("seek_tail")
        if self._call("previous_skip", count + 1) <= count:
            self._call("seek_head")

    def read(self, fields: Iterable[bytes]) -> Iterator[dict[bytes, bytes]]:
        """The next entries, each with those of ``fields`` that it has."""
        self._call("process")
        wanted = tuple(fields)
        while self._call("next"):
            found = ((name, self._field(name)) for name in wanted)
            yield {name: value for name, value in found if value is not None}

    def _field(self, name: bytes) -> bytes | None:
        data, size = c_void_p(), c_size_t()
        if self._library.sd_journal_get_data(self._handle, name, byref(data), byref(size)) < 0:
            return None  # it has none, or it cannot be decompressed
        return ctypes.string_at(data, size.value).partition(b"=")[2]

    def _call(self, name: str, *arguments: object) -> int:
        return self._check(getattr(self._library, f"sd_journal_{name}")(self._handle, *arguments), name)

    @staticmethod
    def _check(result: int, name: str) -> int:
        if result < 0:
            raise failure(f"sd_journal_{name}", code=-result)
        return result


def synchronize(seconds: float) -> bool:
    """Have journald write what it was sent up to now, as `journalctl --sync`; whether it did so in time."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(seconds)
        connection.connect(_SYNCHRONIZE)
        connection.sendall(b'{"method":"io.systemd.Journal.Synchronize","parameters":{}}\0')
        answer = b""
        while not answer.endswith(b"\0"):
            data = connection.recv(4096)
            if not data:
                return False
            answer += data
        return b'"error"' not in answer
    return False
