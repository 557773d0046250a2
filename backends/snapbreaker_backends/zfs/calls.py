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
from functools import cache
from importlib import import_module
from typing import Any

from snapbreaker import commands
from snapbreaker.errors import CheckpointError, ToolError

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
    """``core`` is the module libzfs_core."""

    def __init__(self, core: Any) -> None:
        self._core = core
        self._error: type[Exception] = core.exceptions.ZFSError

    def works(self) -> bool:
        """Whether there is a library that the module fits, and a kernel module."""
        try:
            self._core.lzc_exists(b"snapbreaker-is-no-pool")
        except (OSError, AttributeError, self._error):
            return False
        return True

    def snapshot(self, names: Sequence[str], properties: Mapping[str, str]) -> None:
        encoded = {os.fsencode(key): os.fsencode(value) for key, value in properties.items()}
        with self._explained("snapshot", names):
            self._core.lzc_snapshot(_encoded(names), encoded)

    def hold(self, names: Sequence[str]) -> None:
        with self._explained("hold", names):
            self._core.lzc_hold(dict.fromkeys(_encoded(names), HOLD.encode()))

    def destroy(self, names: Sequence[str]) -> None:
        with self._explained("destroy", names):
            for name in _encoded(names):
                try:
                    self._core.lzc_release({name: [HOLD.encode()]})
                except self._error as error:
                    if getattr(error, "errno", 0) != errno.ENOENT:
                        raise
            self._core.lzc_destroy_snaps(_encoded(names), defer=True)

    @contextmanager
    def _explained(self, what: str, names: Sequence[str]) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            why = "; ".join(map(str, getattr(error, "errors", [error])))
            remedy = _REMEDIES.get(getattr(error, "errno", 0), "")
            raise CheckpointError(f"zfs {what} {' '.join(names)}: {why}", remedy) from error


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
    library = _library()
    if library is not None and library.works():
        return library
    return Program() if commands.installed("zfs") else None


@cache
def _library() -> Library | None:
    """Loaded once, when a checkpoint is made: what the command does to it later does not matter."""
    try:
        import_module("libzfs_core.exceptions")
        return Library(import_module("libzfs_core"))
    except Exception:  # an optional extra; also one that does not fit this Python or the machine's library
        return None


def _run(*words: str, harmless: Sequence[str] = ()) -> None:
    try:
        commands.run(["zfs", *words])
    except ToolError as error:
        if not any(text in error.stderr for text in harmless):
            raise CheckpointError(f"zfs {words[0]}: {error.message}") from error


def _encoded(names: Sequence[str]) -> list[bytes]:
    return [os.fsencode(name) for name in names]


_REMEDIES = {
    errno.ENOSPC: "make room in the pool: zpool list; zfs list -o space",
    errno.EDQUOT: "make room below the quota: zfs get quota,refquota,snapshot_limit",
}
