"""What is to be mounted at boot: fstab(5)."""

from __future__ import annotations

import re
from typing import NamedTuple

PATH = "/etc/fstab"
_ESCAPED = re.compile(r"\\([0-7]{3})")


class Line(NamedTuple):
    source: str
    mountpoint: str
    fstype: str
    options: tuple[str, ...]


def read_fstab(path: str = PATH) -> list[Line]:
    """Its lines that mount a filesystem, in order; none without the file. Raises OSError."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            split = [line.split() for line in file if not line.lstrip().startswith("#")]
    except FileNotFoundError:
        return []
    return [_line(fields) for fields in split if len(fields) >= 3 and fields[1].startswith("/")]


def _line(fields: list[str]) -> Line:
    source, point, fstype = (_ESCAPED.sub(lambda found: chr(int(found[1], 8)), field) for field in fields[:3])
    return Line(source, point, fstype, tuple(fields[3].split(",")) if len(fields) > 3 else ())
