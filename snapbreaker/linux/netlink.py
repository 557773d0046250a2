"""Asking the kernel by netlink(7): dumps, single requests and batches, and the attributes that all are made of."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Self

from snapbreaker.dataclass import dataclass

ROUTE, NETFILTER = 0, 12  # <linux/netlink.h>
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
_ERROR, _DONE = 2, 3
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR: what was listed changed meanwhile
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr
_TYPE = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_NESTED = 0x8000
_BUFFER = 1 << 18
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_LARGEST = 1 << 26  # bytes of a batch and of its answers
_TRIES = 5
_PATIENCE = 10.0  # s for an answer


@dataclass(frozen=True, slots=True)
class Message:
    """``body`` is what follows the header: the struct of the family, then attributes."""

    type: int
    body: bytes
    flags: int = 0

    def packed(self, sequence: int) -> bytes:
        length = _HEADER.size + len(self.body)
        return _HEADER.pack(length, self.type, self.flags, sequence, 0) + self.body + bytes(-length % 4)


class Netlink:
    """One socket. Every method raises OSError with what the kernel says."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.settimeout(_PATIENCE)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def dump(self, type_: int, body: bytes) -> list[Message]:
        """All that the kernel has of it; asked again while that changes."""
        for _ in range(_TRIES):
            self._send([Message(type_, body, REQUEST | DUMP)])
            found, whole = [], True
            for message in self._answers():
                if message.type == _DONE:
                    break
                whole = whole and not message.flags & _INTERRUPTED
                found.append(message)
            if whole:
                break
        return found

    def ask(self, type_: int, body: bytes, flags: int = 0) -> None:
        """One change, done when this returns."""
        self._send([Message(type_, body, REQUEST | ACK | flags)])
        for message in self._answers():
            if message.type == _ERROR:
                return

    def batch(self, messages: Iterable[Message]) -> None:
        """All in one datagram. The last but one has ACK set, or nothing answers."""
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            self._socket.setsockopt(socket.SOL_SOCKET, option, _LARGEST)
        self._send(list(messages))
        for message in self._answers():
            if message.type == _ERROR:
                return

    def _send(self, messages: list[Message]) -> None:
        self._sequence += 1
        self._socket.send(b"".join(message.packed(self._sequence) for message in messages))

    def _answers(self) -> Iterator[Message]:
        while True:
            data = self._socket.recv(_BUFFER)
            at = 0
            while at + _HEADER.size <= len(data):
                length, type_, flags, sequence, _ = _HEADER.unpack_from(data, at)
                body = data[at + _HEADER.size : at + length]
                at += (length + 3) & ~3
                if sequence != self._sequence:
                    continue
                if type_ == _ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    if number:
                        raise OSError(number, os.strerror(number))
                yield Message(type_, body, flags)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each attribute, in their order."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, type_ = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield type_ & _TYPE, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def attribute(type_: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, type_) + value + bytes(-length % 4)


def nested(type_: int, value: bytes) -> bytes:
    return attribute(type_ | _NESTED, value)


def without(data: bytes, types: Iterable[int]) -> bytes:
    """The attributes ``data`` but for those of ``types``; each as it was, flags included."""
    out, unwanted, at = [], set(types), 0
    while at + _ATTRIBUTE.size <= len(data):
        length, type_ = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        end = at + ((length + 3) & ~3)
        if type_ & _TYPE not in unwanted:
            out.append(data[at:end] + bytes(max(0, end - len(data))))
        at = end
    return b"".join(out)


def text(value: bytes) -> str:
    """A name, which ends with a NUL."""
    return os.fsdecode(value.split(b"\0", 1)[0])
