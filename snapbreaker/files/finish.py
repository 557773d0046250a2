"""The end of a restore: metadata, from the leaves up, since every change inside a directory changes its mtime."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress

from snapbreaker.files import metadata
from snapbreaker.files.entry import sort_key
from snapbreaker.files.live import LiveTree
from snapbreaker.files.locks import Locks
from snapbreaker.files.plan import Action, Plan, Step
from snapbreaker.files.tree import Tree
from snapbreaker.linux import btrfs
from snapbreaker.parallel import Counts, in_parallel, part, processes_for
from snapbreaker.progress import Progress

_STEPS_PER_REPORT = 1000


class Finish:
    """Gives what stayed, every directory, and what has locks their metadata."""

    def __init__(self, old: Tree, live: LiveTree, plan: Plan, locks: Locks) -> None:
        self._old, self._live, self._plan, self._locks = old, live, plan, locks

    def run(self, touched: Iterable[bytes], projects: set[bytes], progress: Progress) -> None:
        """``touched`` are directories in which names changed, ``projects`` paths with a borrowed project id.

        A step that fails has its ``failure`` set; other paths are added to the plan's failures.
        """
        todo: dict[bytes, Step | None] = dict.fromkeys([*touched, *self._locks.lifted])
        for step in self._plan.steps:
            if not step.failure and _unfinished(step, projects):
                todo[step.path] = step
            elif not step.failure and step.path in todo:
                del todo[step.path]  # gone, or new with all that it needs
        paths = sorted(todo, key=sort_key, reverse=True)
        for count, path in enumerate(self._left_by_helpers(paths, todo, progress)):
            if count % _STEPS_PER_REPORT == 0:
                progress("finish", len(paths))
            self._finish(path, todo[path])

    def _left_by_helpers(
        self, paths: list[bytes], todo: Mapping[bytes, Step | None], progress: Progress
    ) -> list[bytes]:
        """Several processes do what is simple; what has locks, or fails, is left, in the order of ``paths``.

        Their order does not matter: only a subvolume that becomes read-only again concerns what is below it.
        """
        processes, counts = processes_for(len(paths)), Counts()

        def finish(number: int) -> list[bytes]:
            left = []
            for count, path in enumerate(part(paths, number, processes)):
                if count % _STEPS_PER_REPORT == 0:
                    counts.set(count)
                    if number == 0:
                        progress("finish", counts.sum)
                if not self._finish_simple(path, todo[path]):
                    left.append(path)
            return left

        return [path for left in in_parallel(processes, finish, again=True) for path in left]

    def _finish_simple(self, path: bytes, step: Step | None) -> bool:
        """Whether all of it is done."""
        if path in self._locks.lifted or (step is not None and step.old.subvolume):
            return False
        try:
            if step is None:
                self._put_right(path)
            else:
                self._settle_once(step)
        except OSError:
            return False
        return True

    def _finish(self, path: bytes, step: Step | None) -> None:
        try:
            if step is None:
                self._put_right(path)
            else:
                self._settle(step)
        except OSError as error:
            text = f"metadata cannot be restored: {error.strerror}"
            if step is not None:
                step.failure = text
            else:
                self._plan.failures[path] = text

    def _settle(self, step: Step) -> None:
        try:
            self._settle_once(step)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EROFS) or not self._locks.lift(step.path):
                raise
            self._settle_once(step)

    def _settle_once(self, step: Step) -> None:
        fd = self._live.open_entry(step.old)
        try:
            expected = btrfs.ROOT_INODE if step.old.subvolume else step.inode
            if os.fstat(fd).st_ino != expected:
                raise OSError(errno.ESTALE, "it changed meanwhile")
            metadata.settle(fd, step.old, step.details)
        finally:
            os.close(fd)

    def _put_right(self, path: bytes) -> None:
        """A path that was only touched: a directory gets its mtime back, anything the locks that it had."""
        wanted = self._old.lookup(path)
        if wanted is not None and wanted.is_dir:
            with suppress(FileNotFoundError, NotADirectoryError):
                fd = self._live.open_entry(wanted)
                try:
                    metadata.settle_mtime(fd, wanted.mtime_ns)
                finally:
                    os.close(fd)
        if path in self._locks.lifted:
            self._locks.put_back(path)


def _unfinished(step: Step, projects: set[bytes]) -> bool:
    if step.action is Action.METADATA:
        return True
    if step.action is Action.DISPLACE:
        return False
    if step.old.is_file:
        return bool(step.details.flags & metadata.LOCKS) or step.path in projects
    return step.old.is_dir
