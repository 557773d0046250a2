"""What the lookout tells the monitor: packets of a kind, a name and data (unix(7), SOCK_SEQPACKET)."""

from __future__ import annotations

import json
import struct
from enum import Enum

from snapbreaker.dataclass import dataclass
from snapbreaker.issue import Issue

LONGEST = 64 * 1024  # octets of a packet
CATCH_UP = b"c"  # the monitor's only word
_HEAD = struct.Struct("=cH")


class Kind(Enum):
    OUTPUT = b"o"  # of the source ``name``
    QUIET = b"q"  # the same of a log that a rule pack named
    ISSUE = b"i"
    WARNING = b"w"
    CAUGHT_UP = b"e"


@dataclass(frozen=True, slots=True)
class Message:
    kind: Kind
    name: str = ""
    data: bytes = b""

    def packed(self) -> bytes:
        name = self.name.encode("utf-8", "surrogateescape")
        return _HEAD.pack(self.kind.value, len(name)) + name + self.data

    @classmethod
    def unpacked(cls, packet: bytes) -> Message:
        kind, size = _HEAD.unpack_from(packet)
        end = _HEAD.size + size
        return cls(Kind(kind), packet[_HEAD.size : end].decode("utf-8", "surrogateescape"), packet[end:])

    @classmethod
    def of_issue(cls, issue: Issue) -> Message:
        return cls(Kind.ISSUE, issue.source, json.dumps(issue.as_dict()).encode("ascii"))

    @classmethod
    def warning(cls, text: str) -> Message:
        return cls(Kind.WARNING, "", text.encode("utf-8", "backslashreplace"))

    @property
    def issue(self) -> Issue:
        return Issue.from_dict(json.loads(self.data))
