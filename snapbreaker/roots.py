"""The directory where a volume's tree starts. It is not a path of the tree, so the file engine needs it there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from snapbreaker.backend import Volume
from snapbreaker.errors import RestoreError
from snapbreaker.files import ops
from snapbreaker.linux.openat import open_beneath
from snapbreaker.paths import relative

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_GONE = (errno.ENOENT, errno.ENOTDIR)


@contextmanager
def opened(volume: Volume) -> Iterator[int]:
    """A descriptor of the root. Raises RestoreError when what is seen under its path now is something else.

    A symbolic link or a mount above it would lead to files that were never recorded.
    """
    fd = _open(volume, os.fsencode(relative(volume.root, volume.mountpoint)))
    try:
        yield fd
    finally:
        os.close(fd)


def bring_back(volume: Volume, vault: str, subvolume: bool) -> str:
    """Make the root again where it was removed, renamed or replaced; what stands in its place goes to ``vault``.

    Empty and 0700: content and metadata are the restore's. Returns what was done, empty when nothing had to be.
    Raises RestoreError where the directory above it is not what it was either: nobody knows what that looked like.
    """
    inside = os.fsencode(relative(volume.root, volume.mountpoint))
    above, _, name = inside.rpartition(b"/")
    if not name or _is_directory(volume, inside):
        return ""
    parent = _open(volume, above)
    try:
        replaced = _displace(volume, parent, name, vault)
        if subvolume:
            ops.create_subvolume(parent, name)
        else:
            ops.mkdir(parent, name)
        ops.fsync(parent)
    finally:
        os.close(parent)
    return f"made {volume.root} again, which the command had " + ("replaced" if replaced else "removed")


def _is_directory(volume: Volume, inside: bytes) -> bool:
    try:
        os.close(_open(volume, inside))
    except RestoreError:
        return False
    return True


def _open(volume: Volume, inside: bytes) -> int:
    shown = os.path.join(volume.mountpoint, os.fsdecode(inside)).rstrip("/") or "/"
    try:
        top = os.open(volume.mountpoint, _DIRECTORY | os.O_CLOEXEC)
        try:
            return open_beneath(top, inside, _DIRECTORY, one_mount=True)
        finally:
            os.close(top)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise RestoreError(
                f"another filesystem is mounted over {shown} now", "unmount it, then roll back"
            ) from error
        if error.errno in _GONE:
            raise RestoreError(
                f"{shown} is gone, or no longer a directory", "make it again, then roll back"
            ) from error
        if error.errno == errno.ELOOP:
            raise RestoreError(
                f"a symbolic link in {shown} leads elsewhere now", "put the directory back, then roll back"
            ) from error
        raise


def _displace(volume: Volume, parent: int, name: bytes, vault: str) -> bool:
    """Whether there was anything."""
    place = next(path for number in range(1, 1 << 20) if not os.path.lexists(path := f"{vault}/root.{number}"))
    try:
        os.rename(name, place, src_dir_fd=parent)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise RestoreError(
            f"{volume.root} was replaced, and what is there now cannot be moved away: {error.strerror}",
            "move it away, then roll back",
        ) from error
    return True
