"""A directory on a disk for what the command writes: ``--upper DIR``. Noted, so that a crash leaves nothing."""

from __future__ import annotations

import os
from pathlib import Path

from snapbreaker.errors import UsageError
from snapbreaker.files.remove import remove_tree
from snapbreaker.linux.durable import sync_directory

_NOTE = "upper"


def make(record: Path, directory: str) -> str:
    """An empty directory of ours in ``directory``, for the run of ``record``. Raises OSError, UsageError."""
    place = os.path.realpath(directory)
    if not os.path.isdir(place):
        raise UsageError(f"--upper {directory} is not a directory")
    base = os.path.join(place, f"snapbreaker-{record.name}")
    (record / _NOTE).write_bytes(os.fsencode(base))
    sync_directory(str(record))
    os.mkdir(base, 0o700)
    return base


def remove(record: Path) -> None:
    """Remove that directory with all it holds. Idempotent. System calls only."""
    try:
        base = (record / _NOTE).read_bytes()
    except FileNotFoundError:
        return
    above, name = os.path.split(base)
    fd = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(fd, name)
    except FileNotFoundError:
        pass
    finally:
        os.close(fd)
    (record / _NOTE).unlink()
