"""What PID 1 tells by itself: D-Bus signals on its private socket, org.freedesktop.systemd1(5).

It sends every signal to all who are connected there, unasked (bus_foreach_bus in src/core/dbus.c).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import Any

from jeepney import HeaderFields, MessageType, Parser

from snapbreaker.dataclass import dataclass
from snapbreaker.linux.systemd import NAME, PATH, SOCKET, open_private

_UNITS = f"{PATH}/unit/"
_ESCAPED = re.compile(r"_([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class Changed:
    """Properties of a unit that have new values; ``kind`` is the interface (Unit, Service …)."""

    unit: str
    kind: str
    properties: dict[str, Any]


@dataclass(frozen=True, slots=True)
class JobNew:
    job: int
    unit: str


@dataclass(frozen=True, slots=True)
class JobRemoved:
    """``result``: done, canceled, timeout, failed, dependency, skipped."""

    job: int
    unit: str
    result: str


Signal = Changed | JobNew | JobRemoved


class Signals:
    """A connection that only listens. Raises OSError."""

    def __init__(self) -> None:
        self._socket, behind = open_private(SOCKET)
        self._socket.setblocking(False)
        self._parser = Parser()
        self._parser.add_data(behind)
        self.fd = self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> Iterator[Signal]:
        """What was told since the last call. ConnectionResetError when PID 1 has closed (daemon-reexec)."""
        while True:
            while (message := self._parser.get_next_message()) is not None:
                if message.header.message_type is MessageType.signal and (found := _signal(message)):
                    yield found
            try:
                data = self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if not data:
                raise ConnectionResetError
            self._parser.add_data(data)


def _signal(message: Any) -> Signal | None:
    fields, body = message.header.fields, message.body
    member, path = fields.get(HeaderFields.member), str(fields.get(HeaderFields.path, ""))
    if member == "JobNew":
        return JobNew(body[0], body[2])
    if member == "JobRemoved":
        return JobRemoved(body[0], body[2], body[3])
    if member == "PropertiesChanged" and path.startswith(_UNITS):
        properties = {name: value for name, (_, value) in body[1].items()}
        return Changed(name_of(path), body[0].removeprefix(f"{NAME}."), properties)
    return None


def name_of(path: str) -> str:
    """The unit of a D-Bus object path: ``…/unit/foo_2eservice`` is foo.service (sd_bus_path_encode(3))."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), path.removeprefix(_UNITS))
