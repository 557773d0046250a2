"""A private ``/run``: what programs read there, and nothing through which they could reach another one.

A call to a daemon then fails, instead of changing something outside. Not copied: sockets and fifos, files with the
pid of a running program (who reads one means to signal it), the journal, and what udev knows of devices.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection

LARGEST = 1 << 20  # octets of a file that is copied
_SKIPPED = frozenset({"log", "udev", "snapbreaker", "credentials"})
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def copy(source: int, target: int, skipped: Collection[str] = _SKIPPED) -> None:
    """Copy what is in the open directory ``source`` to ``target``. What cannot be read (any more) is left out."""
    device = os.fstat(source).st_dev
    for name in os.listdir(source):
        if name not in skipped:
            try:
                _copy(name, source, target, device)
            except OSError:
                continue


def _copy(name: str, source: int, target: int, device: int) -> None:
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif stat.S_ISDIR(status.st_mode):
        os.mkdir(name, 0o700, dir_fd=target)
        inner = os.open(name, _DIRECTORY, dir_fd=target)
        try:
            _own(inner, status)
            outer = os.open(name, _DIRECTORY, dir_fd=source)
            try:
                if status.st_dev == device:
                    copy(outer, inner, ())
            finally:
                os.close(outer)
        finally:
            os.close(inner)
    elif stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST and not name.endswith(".pid"):
        _copy_file(name, source, target, status)


def _copy_file(name: str, source: int, target: int, status: os.stat_result) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    try:
        data = os.read(fd, LARGEST)
    finally:
        os.close(fd)
    if data.strip().isdigit():
        return
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
    try:
        os.write(fd, data)
        _own(fd, status)
    finally:
        os.close(fd)


def _own(fd: int, status: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, stat.S_IMODE(status.st_mode))
