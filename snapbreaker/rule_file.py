"""A rule file that a person keeps is replaced whole, with its owner and mode."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from snapbreaker.errors import UsageError
from snapbreaker.linux.durable import sync_directory


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Nobody else who asks for it changes the file meanwhile: a lock of its directory (flock(2)).

    Raises UsageError.
    """
    try:
        fd = os.open(os.path.dirname(os.path.realpath(path)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` (of a symlink: what it leads to) atomically and durably. A new one has mode 0644.

    Raises UsageError; what was there is then still whole.
    """
    place = os.path.realpath(path)
    temporary = f"{place}.{os.getpid()}.new"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            try:
                old = os.stat(place)
                os.fchown(fd, old.st_uid, old.st_gid)
                os.fchmod(fd, old.st_mode & 0o7777)
            except FileNotFoundError:
                os.fchmod(fd, 0o644)
            file.write(text)
            file.flush()
            os.fsync(fd)
        os.rename(temporary, place)
        sync_directory(os.path.dirname(place))
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
