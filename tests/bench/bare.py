"""`python -m tests.bench.bare WORK KEPT FILES PATHS`: undo `tree.change` by the system calls that it takes.

Nothing is looked for, judged, noted or proven here: no rollback can be much quicker on this filesystem.

``KEPT`` holds the files as they were: a snapshot of ``WORK``, or in ``files`` a hard link or copy of each changed
path, and in ``links`` a link of every file, which go at the end. Both cores take part where the kernel lets them.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from snapbreaker.linux.clone import clone_file
from snapbreaker.linux.inode import RENAME_EXCHANGE, renameat2
from snapbreaker.linux.writeback import syncfs
from tests.bench.tree import NEW, Kind, kind_of, other_name, path_of

_READ = os.O_RDONLY | os.O_NOFOLLOW


class Bare:
    """The way back of one tree."""

    def __init__(self, work: Path, kept: Path, files: int, paths: int) -> None:
        self._work, self._kept = work, kept
        self._linked = (kept / "links").is_dir()
        self._numbers = [step * files // paths for step in range(paths)]
        self._kinds = {number: kind_of(number, step) for step, number in enumerate(self._numbers)}
        self._slots = work / "slots"  # rename(2) crosses no subvolume
        self._top = os.stat(work)

    def run(self) -> None:
        self._slots.mkdir()
        if self._linked:
            _by_two(self._walk)
        _by_two(lambda part: self._each(self._stage, part))
        self._sync()
        for number in self._numbers:
            self._swap(number)
        _by_two(lambda part: self._each(self._settle, part))
        _by_two(self._settle_directories)
        os.utime(self._work, ns=(self._top.st_atime_ns, self._top.st_mtime_ns))
        self._sync()
        if self._linked:
            _by_two(self._walk)
            _by_two(self._let_go)

    def _each(self, do: Callable[[int], None], part: int) -> None:
        for number in self._numbers[part::2]:
            do(number)

    def _source(self, number: int) -> str:
        return f"{self._kept}/files/{number}" if self._linked else f"{self._kept}/{path_of(number)}"

    def _walk(self, part: int) -> None:
        for directory in self._directories()[part::2]:
            fd = os.open(f"{self._work}/{directory}", _READ)
            with os.scandir(fd) as entries:
                for entry in entries:
                    entry.stat(follow_symlinks=False)
            os.close(fd)

    def _directories(self) -> list[str]:
        last = self._numbers[-1]
        return sorted({os.path.dirname(path_of(number)) for number in range(last + 1)})

    def _stage(self, number: int) -> None:
        kind, source, slot = self._kinds[number], self._source(number), f"{self._slots}/{number}"
        if kind is Kind.SYMLINK:
            os.symlink(os.readlink(source), slot)
            _times(source, slot)
        elif kind in (Kind.REPLACED, Kind.DELETED) and self._linked:
            os.link(source, slot)
        elif kind in (Kind.REPLACED, Kind.DELETED) and other_name(number):
            os.link(f"{self._work}/{path_of(other_name(number))}", slot)
        elif kind in (Kind.REPLACED, Kind.DELETED) or self._anew(number):
            self._copy(source, slot)

    def _anew(self, number: int) -> bool:
        """Whether the file was written in place and has no other name that must go on sharing its inode."""
        return self._kinds[number] is Kind.WRITTEN and not other_name(number)

    @staticmethod
    def _copy(source: str, slot: str) -> None:
        fd = os.open(source, _READ)
        new = os.open(slot, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        status = os.fstat(fd)
        if status.st_size and not clone_file(fd, new):
            os.copy_file_range(fd, new, status.st_size)
        os.fchown(new, status.st_uid, status.st_gid)
        os.fchmod(new, status.st_mode & 0o7777)
        for name in os.listxattr(fd):
            os.setxattr(new, name, os.getxattr(fd, name))
        os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.close(new)
        os.close(fd)

    def _swap(self, number: int) -> None:
        kind, path, slot = self._kinds[number], f"{self._work}/{path_of(number)}", f"{self._slots}/{number}"
        if kind is Kind.DELETED:
            os.rename(slot, path)
        elif kind is Kind.NEW:
            os.rename(f"{os.path.dirname(path)}/{NEW % number}", slot)
        elif kind in (Kind.REPLACED, Kind.SYMLINK) or self._anew(number):
            renameat2(-100, os.fsencode(slot), -100, os.fsencode(path), RENAME_EXCHANGE)

    def _settle(self, number: int) -> None:
        kind, path, source = self._kinds[number], f"{self._work}/{path_of(number)}", self._source(number)
        if kind is Kind.WRITTEN and other_name(number):
            shutil.copyfile(source, path)
            _times(source, path)
        elif kind is Kind.MODE:
            status = os.stat(source)
            os.chown(path, status.st_uid, status.st_gid)
            os.chmod(path, status.st_mode & 0o7777)
        elif kind is Kind.XATTR:
            for name in os.listxattr(path):
                os.removexattr(path, name)
            for name in os.listxattr(source):
                os.setxattr(path, name, os.getxattr(source, name))
            _times(source, path)

    def _settle_directories(self, part: int) -> None:
        where = self._kept / "directories" if self._linked else self._kept
        for directory in self._directories()[part::2]:
            _times(f"{where}/{directory}", f"{self._work}/{directory}")

    def _let_go(self, part: int) -> None:
        for name in sorted(os.listdir(self._kept / "links"))[part::2]:
            directory = f"{self._kept}/links/{name}"
            for link in os.listdir(directory):
                os.unlink(f"{directory}/{link}")

    def _sync(self) -> None:
        fd = os.open(self._work, _READ)
        syncfs(fd)
        os.close(fd)


def _times(source: str, target: str) -> None:
    status = os.stat(source, follow_symlinks=False)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _by_two(work: Callable[[int], object]) -> None:
    child = os.fork()
    if child == 0:
        work(1)
        os._exit(0)
    work(0)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("a part of the bare system calls failed")


if __name__ == "__main__":
    Bare(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])).run()
