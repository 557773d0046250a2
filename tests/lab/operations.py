"""Everything that can be done to a tree, as single steps: what random tests put together.

An ``Operation`` chooses among what is there when its turn comes, so that most are possible. Those that are not (a
directory that is not empty, an immutable file, no btrfs) do nothing. Paths may be longer than PATH_MAX.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from tests.lab.actions import (
    CHANGING,
    DIRECTORY,
    MAKING,
    MOVING,
    NAMES,
    OF_DIRECTORIES,
    OF_FILES,
    OF_INODES,
    Place,
    exchange,
    link,
)

_MOST = 60  # of the names and directories of a tree


class Operation(NamedTuple):
    """``at`` and ``other`` choose among the paths that are there, ``name`` is one of ``NAMES``."""

    action: str
    at: int
    other: int
    name: int
    number: int


def apply(root: bytes, operations: Iterable[Operation], spared: bytes) -> None:
    """One after the other; what is not possible is left out. The directory ``spared`` stays where it is, and what
    is mounted below it.
    """
    top = os.open(root, DIRECTORY)
    try:
        for operation in operations:
            with suppress(OSError, shutil.Error):
                _apply(top, operation, spared)
    finally:
        os.close(top)


def apply_in_processes(root: bytes, parts: Sequence[Sequence[Operation]], spared: bytes) -> None:
    """Each part by a process of its own, all at once."""
    children = []
    for part in parts:
        pid = os.fork()
        if pid == 0:
            try:
                apply(root, part, spared)
            finally:
                os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)


def _apply(top: int, operation: Operation, spared: bytes) -> None:
    action, at, other, name, number = operation
    paths, directories, files = _paths(top, spared)
    named = NAMES[name]
    with ExitStack() as stack:

        def place(path: bytes) -> Place:
            found = _place(top, path)
            stack.callback(os.close, found.directory)
            return found

        def new(choice: int) -> Place:
            directory = directories[choice % len(directories)]
            return place(directory + b"/" + named if directory else named)

        def present(choice: int, among: list[bytes] = paths) -> Place:
            return place(among[choice % len(among)])

        if action in MAKING:
            MAKING[action](new(at), number)
        elif not paths:
            return
        elif action in OF_FILES:
            if files:
                OF_FILES[action](present(at, files), number)
        elif action == "link":
            link(present(at, files or paths), new(other))
        elif action in MOVING:
            MOVING[action](present(at), new(other))
        elif action == "exchange":
            exchange(present(at), present(other))
        elif action in OF_DIRECTORIES:
            OF_DIRECTORIES[action](present(at, directories), number)
        elif action in OF_INODES:
            # The top of the scope is one of them.
            OF_INODES[action](present(at) if at % 16 else Place(stack.enter_context(_dup(top)), b"."), number)
        else:
            CHANGING[action](present(at), number)


@contextmanager
def _dup(fd: int) -> Iterator[int]:
    copy = os.dup(fd)
    try:
        yield copy
    finally:
        os.close(copy)


def _paths(top: int, spared: bytes) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """What can be changed, where things can be made, and the files; not all of a large tree."""
    device = os.fstat(top).st_dev
    paths: list[bytes] = []
    directories, files = [b""], []
    for directory in directories:
        with suppress(OSError):
            fd = os.dup(top) if not directory else _opened(_place(top, directory))
            try:
                for name in sorted(map(os.fsencode, os.listdir(fd)))[:_MOST]:
                    facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    path = directory + b"/" + name if directory else name
                    if (
                        stat.S_ISDIR(facts.st_mode)
                        and len(directories) < _MOST
                        and not os.path.ismount(b"/proc/self/fd/%d/%s" % (fd, name))
                    ):
                        directories.append(path)
                    if stat.S_ISREG(facts.st_mode):
                        files.append(path)
                    if (
                        path != spared
                        and (facts.st_dev == device or facts.st_ino == 256)
                        and name != b".snapbreaker"
                    ):
                        paths.append(path)
            finally:
                os.close(fd)
    return paths, directories, files


def _opened(place: Place) -> int:
    try:
        return os.open(place.name, DIRECTORY, dir_fd=place.directory)
    finally:
        os.close(place.directory)


def _place(top: int, path: bytes) -> Place:
    *above, name = path.split(b"/")
    directory = os.dup(top)
    try:
        for step in above:
            below = os.open(step, DIRECTORY, dir_fd=directory)
            os.close(directory)
            directory = below
    except BaseException:
        os.close(directory)
        raise
    return Place(directory, name)
