"""Files that are whole or not there, also after a power cut."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from typing import Any

from snapbreaker.linux.inode import RENAME_EXCHANGE, renameat2


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


def write_over(spare: str, path: str, data: bytes) -> None:
    """As ``write_file``, into the blocks that the file ``spare`` has: the two change their places.

    For a filesystem without any space left. ``data`` is padded with line ends up to what the spare file held.
    Raises OSError: ENOSPC too when that is too little; what was there before is then still whole.
    """
    fd = os.open(spare, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        meta = os.fstat(fd)
        if len(data) > meta.st_blocks * 512:  # stat(2): st_blocks counts 512 bytes, whatever st_blksize
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        view = memoryview(data.ljust(meta.st_size, b"\n"))
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
        _exchange(spare, path)
    finally:
        os.close(fd)
    sync_directory(os.path.dirname(path))


def _exchange(spare: str, path: str) -> None:
    """Without a spare file for the next time where the filesystem cannot (ZFS before 2.2)."""
    try:
        renameat2(-1, os.fsencode(spare), -1, os.fsencode(path), RENAME_EXCHANGE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        os.rename(spare, path)


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
    write_file(path, encode_json(value))


def encode_json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode("ascii") + b"\n"


def read_json(path: str) -> Any:
    with open(path, "rb") as file:
        return json.loads(file.read())
