"""Files that are whole or not there, also after a power cut."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any


def sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        error.filename = error.filename or path
        raise
    finally:
        os.close(fd)


def write_file(path: str, data: bytes) -> None:
    """Replace ``path`` atomically with ``data``, mode 0600, fsynced with its directory.

    Raises OSError; what was there before is then still whole.
    """
    temporary = path + ".new"
    try:
        _write_new(temporary, data)
        os.rename(temporary, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        error.filename = error.filename or path
        raise
    sync_directory(os.path.dirname(path))


def _write_new(path: str, data: bytes) -> None:
    with suppress(FileNotFoundError):  # of a process that died
        os.unlink(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, 0o600)  # whatever the umask
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def write_json(path: str, value: Any) -> None:
    """``value`` as JSON; surrogate escapes of odd file names survive the round trip."""
    write_file(path, json.dumps(value, indent=1).encode("ascii") + b"\n")


def read_json(path: str) -> Any:
    with open(path, "rb") as file:
        return json.loads(file.read())
