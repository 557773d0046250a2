"""What is asked of ZFS: through libzfs_core where Python has it (pyzfs), else by the program zfs(8).

Only for making and removing checkpoints. Nothing here is needed between the start of a command and the end of its
rollback.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from snapbreaker import commands
from snapbreaker.errors import CheckpointError, ToolError

try:
    libzfs_core: Any = import_module("libzfs_core")
    exceptions: Any = import_module("libzfs_core.exceptions")
except ImportError:  # an optional extra; also an installed one that does not fit the machine's library
    libzfs_core = exceptions = None

HOLD = "snapbreaker"  # the tag: who destroys the snapshot is told `dataset is busy`, and `zfs holds` says by whom


class Calls(ABC):
    """The names of snapshots are ``pool/dataset@name``; those of one call are of one pool.

    All raise CheckpointError.
    """

    @abstractmethod
    def snapshot(self, names: Sequence[str], properties: Mapping[str, str]) -> None:
        """Take all of them at one instant, or none; with user ``properties`` (zfsprops(7))."""

    @abstractmethod
    def hold(self, names: Sequence[str]) -> None:
        """Keep them from being destroyed."""

    @abstractmethod
    def destroy(self, names: Sequence[str]) -> None:
        """Let go of them and destroy them; one that others hold or have cloned goes with the last of these.

        Idempotent.
        """


class Library(Calls):
    def snapshot(self, names: Sequence[str], properties: Mapping[str, str]) -> None:
        encoded = {os.fsencode(key): os.fsencode(value) for key, value in properties.items()}
        with _explained("snapshot", names):
            libzfs_core.lzc_snapshot(_encoded(names), encoded)

    def hold(self, names: Sequence[str]) -> None:
        with _explained("hold", names):
            libzfs_core.lzc_hold(dict.fromkeys(_encoded(names), HOLD.encode()))

    def destroy(self, names: Sequence[str]) -> None:
        with _explained("destroy", names):
            for name in _encoded(names):
                try:
                    libzfs_core.lzc_release({name: [HOLD.encode()]})
                except exceptions.ZFSError as error:
                    if error.errno != errno.ENOENT:
                        raise
            libzfs_core.lzc_destroy_snaps(_encoded(names), defer=True)


class Program(Calls):
    def snapshot(self, names: Sequence[str], properties: Mapping[str, str]) -> None:
        options = [word for key, value in properties.items() for word in ("-o", f"{key}={value}")]
        _run("snapshot", *options, *names)

    def hold(self, names: Sequence[str]) -> None:
        _run("hold", HOLD, *names)

    def destroy(self, names: Sequence[str]) -> None:
        for name in names:
            _run("release", HOLD, name, harmless=("no such tag", "does not exist"))
            _run("destroy", "-d", name, harmless=("could not find any snapshots", "does not exist"))


def find() -> Calls | None:
    """The best way on this machine, None when there is none."""
    if libzfs_core is not None:
        try:
            libzfs_core.lzc_exists(b"snapbreaker-is-no-pool")
        except (OSError, AttributeError, exceptions.ZFSError):  # no library, or one that does not fit
            pass
        else:
            return Library()
    return Program() if commands.installed("zfs") else None


def _run(*words: str, harmless: Sequence[str] = ()) -> None:
    try:
        commands.run(["zfs", *words])
    except ToolError as error:
        if not any(text in error.stderr for text in harmless):
            raise CheckpointError(f"zfs {words[0]}: {error.message}") from error


@contextmanager
def _explained(what: str, names: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except exceptions.ZFSError as error:
        why = "; ".join(map(str, getattr(error, "errors", [error])))
        raise CheckpointError(f"zfs {what} {' '.join(names)}: {why}", _REMEDIES.get(error.errno, "")) from error


def _encoded(names: Sequence[str]) -> list[bytes]:
    return [os.fsencode(name) for name in names]


_REMEDIES = {
    errno.ENOSPC: "make room in the pool: zpool list; zfs list -o space",
    errno.EDQUOT: "make room below the quota: zfs get quota,refquota,snapshot_limit",
}
