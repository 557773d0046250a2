"""The marker: a small file at the top level of the filesystem, which no rollback of a subvolume reaches.

The top level (subvolume 5) is hardly ever mounted, so it is reached by a mount that nobody sees. Its
``.snapbreaker`` is left out of every walk, should it be mounted and in scope after all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from snapbreaker.backend import Marker, Volume
from snapbreaker.linux.btrfs import TOP_LEVEL
from snapbreaker.linux.mount import detached_mount
from snapbreaker.linux.mountinfo import read_mounts
from snapbreaker.paths import below, relative

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def write_marker(volume: Volume, marker: Marker) -> None:
    """Replace the volume's marker atomically; it is on disk when this returns. Raises OSError."""
    text = json.dumps(
        {"root": volume.root, "checkpoint": marker.checkpoint, "state": marker.state, "boot_id": marker.boot_id}
    )
    with _markers(volume, create=True) as directory:
        name = _name(volume)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name + ".new", flags, 0o600, dir_fd=directory)
        try:
            os.write(fd, text.encode("ascii"))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(name + ".new", name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)


def read_marker(volume: Volume) -> Marker | None:
    """The volume's marker, None when there is none. Raises OSError."""
    try:
        with _markers(volume) as directory:
            fd = os.open(_name(volume), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            with os.fdopen(fd, "rb") as file:
                fields = json.loads(file.read())
    except FileNotFoundError:
        return None
    return Marker(fields["checkpoint"], fields["state"], fields["boot_id"])


def clear_marker(volume: Volume) -> None:
    """Remove the volume's marker; it is gone from the disk when this returns. Idempotent."""
    with suppress(FileNotFoundError), _markers(volume) as directory:
        for name in (_name(volume), _name(volume) + ".new"):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
        os.fsync(directory)


@contextmanager
def _markers(volume: Volume, create: bool = False) -> Iterator[int]:
    """The directory of the markers. It is gone again when it is left empty; the top level keeps its times."""
    with detached_mount("btrfs", volume.source, {"subvolid": str(TOP_LEVEL)}) as top:
        before = os.fstat(top)
        base = directory = -1
        try:
            base = _enter(top, ".snapbreaker", create)
            directory = _enter(base, "markers", create)
            yield directory
        finally:
            for fd in (directory, base):
                if fd >= 0:
                    os.close(fd)
            with suppress(OSError):
                os.rmdir(".snapbreaker/markers", dir_fd=top)
                os.rmdir(".snapbreaker", dir_fd=top)
            if os.fstat(top).st_mtime_ns != before.st_mtime_ns:
                os.utime(top, ns=(before.st_atime_ns, before.st_mtime_ns))


def _enter(parent: int, name: str, create: bool) -> int:
    if create:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
            os.fsync(parent)
    return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)


def _name(volume: Volume) -> str:
    """The same after a reboot, and after another subvolume was put in the place of this one."""
    inside = next(
        (
            below(mount.root, relative(volume.root, volume.mountpoint))
            for mount in read_mounts()
            if mount.mountpoint == volume.mountpoint and mount.fstype == "btrfs"
        ),
        volume.root,
    )
    return hashlib.sha256(os.fsencode(inside)).hexdigest()[:32]
