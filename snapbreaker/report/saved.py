"""The report as it lies in a record: ``report.json``, 0600, replaced atomically and durably."""

from __future__ import annotations

import contextlib
import json
import os

from snapbreaker.errors import CheckpointError
from snapbreaker.report.model import Report

NAME = "report.json"


def save_report(report: Report, record_path: str | os.PathLike[str]) -> str:
    """Write the report into the record's directory; returns its path. System calls only.

    When this returns the file is on disk under its name (fsync(2) of file and directory). Raises OSError; an
    earlier report is then still whole.
    """
    data = json.dumps(report.as_dict(), indent=1).encode("ascii")
    directory = os.open(record_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        temporary = f".{NAME}.{os.getpid()}"
        try:
            _write_new(directory, temporary, data)
            os.rename(temporary, NAME, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            _unlink_quietly(directory, temporary)
            raise
        os.fsync(directory)
    finally:
        os.close(directory)
    return os.path.join(os.fspath(record_path), NAME)


def load_report(record_path: str | os.PathLike[str]) -> Report:
    """Read the record's report. Raises CheckpointError when there is none or it cannot be read."""
    path = os.path.join(os.fspath(record_path), NAME)
    try:
        with open(path, "rb") as file:
            data = json.loads(file.read())
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: no report yet", "the run has not ended, or was a bare checkpoint"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: not a report")
    return Report.from_dict(data)


def _write_new(directory: int, name: str, data: bytes) -> None:
    """Create ``name``, 0600 whatever the umask. A stale one of a crashed process with our pid is replaced."""
    _unlink_quietly(directory, name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        os.fchmod(fd, 0o600)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _unlink_quietly(directory: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)
