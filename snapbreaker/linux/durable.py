"""Files that are whole or not there, also after a power cut."""

from __future__ import annotations

import json
import os
from typing import Any


def sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path: str, data: bytes) -> None:
    """Replace ``path`` atomically with ``data``, mode 0600, fsynced with its directory."""
    temporary = path + ".new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    sync_directory(os.path.dirname(path))


def write_json(path: str, value: Any) -> None:
    """``value`` as JSON; surrogate escapes of odd file names survive the round trip."""
    write_file(path, json.dumps(value, indent=1).encode("ascii") + b"\n")


def read_json(path: str) -> Any:
    with open(path, "rb") as file:
        return json.loads(file.read())
