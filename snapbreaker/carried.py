"""What is kept of a volume that another one has replaced: it comes over from the old one, path by path.

Paths are those below the top of both trees, without a leading slash. Cut off, all of it can be done again.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from snapbreaker.files import ops
from snapbreaker.files.copy import copy_tree
from snapbreaker.files.live import LiveTree
from snapbreaker.files.policy import PathClass, Policy
from snapbreaker.files.remove import remove_tree
from snapbreaker.linux.openat import open_beneath

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_ours(directory: str) -> bool:
    """Whether nobody else can have put a plan into it: else a stranger would say what is removed and copied.

    Nor into the one above, ``.snapbreaker``. Raises OSError.
    """
    for path in (os.path.dirname(directory), directory):
        facts = os.lstat(path)
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
            return False
    return True


def kept_of(policy: Policy) -> list[str]:
    """Logs, records, vaults, and what ``--keep`` names."""
    kept = {os.fsdecode(path) for path, cls in policy.classes if path and cls is not PathClass.RESTORE}
    kept.add(".snapbreaker")
    return sorted(path for path in kept if not any(path.startswith(f"{other}/") for other in kept))


def times_around(top: int, kept: Iterable[str]) -> dict[str, int]:
    """The mtimes (ns) of the directories that hold what is kept, as the checkpoint ``top`` has them."""
    times = {}
    for path in {path.rpartition("/")[0] for path in kept}:
        if is_directory(top, os.fsencode(path)):
            with opened(open_beneath(top, os.fsencode(path), DIRECTORY)) as fd:
                times[path] = os.fstat(fd).st_mtime_ns
    return times


def there_in(old: int, new: int, kept: Iterable[str]) -> list[bytes]:
    """What of ``kept`` comes over: not where the directory that would hold it is no part of the checkpoint."""
    paths = map(os.fsencode, kept)
    return [path for path in paths if exists(old, path) and is_directory(new, path.rpartition(b"/")[0])]


def clear(new: int, kept: Iterable[str]) -> None:
    """Remove what is kept as the checkpoint has it. Only once: afterwards what has come over stands there."""
    for path in map(os.fsencode, kept):
        if exists(new, path):
            _clear(new, path)


def _clear(new: int, path: bytes) -> None:
    """All but the directory itself, since something may be mounted there; so may be on what is in it."""
    with parent_of(new, path) as (parent, name):
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            remove_tree(parent, name)
            return
        with opened(os.open(name, DIRECTORY, dir_fd=parent)) as fd:
            for inner in map(os.fsencode, os.listdir(fd)):
                try:
                    remove_tree(fd, inner)
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise


def copy(old: int, new: int, kept: Iterable[bytes]) -> None:
    """With all that is known of it, and without the data where the filesystem can share them. Raises OSError."""
    tree = LiveTree(old, vault_name=b"/")  # vaults are kept, too
    try:
        for path in kept:
            if exists(old, path):
                copy_tree(tree, new, path)
    finally:
        tree.close()


def set_times(new: int, times: Mapping[str, int]) -> None:
    """Those of ``times_around``, after the copy."""
    for directory, mtime in times.items():
        with opened(open_beneath(new, os.fsencode(directory), DIRECTORY)) as fd:
            ops.set_mtime(fd, mtime, os.fstat(fd).st_atime_ns)


@contextmanager
def parent_of(top: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    """The directory that holds ``path``, and its name there."""
    above, _, name = path.rpartition(b"/")
    with opened(open_beneath(top, above, DIRECTORY)) as fd:
        yield fd, name


@contextmanager
def opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def exists(top: int, path: bytes) -> bool:
    """Of something else than directories above it nothing is there."""
    return _found(top, path, os.O_NOFOLLOW)


def is_directory(top: int, path: bytes) -> bool:
    return _found(top, path, os.O_NOFOLLOW | os.O_DIRECTORY)


def _found(top: int, path: bytes, flags: int) -> bool:
    try:
        os.close(open_beneath(top, path, os.O_PATH | flags))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise
    return True
