"""Work in several processes, since Python uses one core."""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import struct
from collections.abc import Callable, Sequence
from typing import Generic, NoReturn, TypeVar, cast

from snapbreaker.errors import CheckpointError
from snapbreaker.linux.process import die_with_parent

T = TypeVar("T")
PATHS_WORTH_A_PROCESS = 500
_MOST = 4  # processes: beyond that the filesystem's journal is what all wait for
_NUMBER = struct.Struct("=Q")
_WHOLE = b"whole"  # ends what a process tells: without, it died meanwhile
_number = 0
_QUIET = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def how_many() -> int:
    """Processes that are worth while on this machine."""
    return min(_MOST, len(os.sched_getaffinity(0)))


def processes_for(paths: int) -> int:
    """How many processes are worth while for so many paths that are to be read or written."""
    return max(1, min(how_many(), paths // PATHS_WORTH_A_PROCESS))


def number() -> int:
    """Which of the processes of ``in_parallel`` this is: 0 for the one that called it."""
    return _number


def part(items: Sequence[T], number: int, parts: int) -> Sequence[T]:
    """Of ``items`` those that process ``number`` of so many has to do."""
    return items[len(items) * number // parts : len(items) * (number + 1) // parts]


class Counts:
    """What each of several processes has counted, seen by all."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, _NUMBER.size * _MOST)

    def set(self, count: int) -> None:
        """This process has counted up to ``count``."""
        _NUMBER.pack_into(self._shared, _NUMBER.size * _number, count)

    def add(self, count: int) -> None:
        """``count`` more, also to what an earlier process of the same number has counted."""
        self.set(_NUMBER.unpack_from(self._shared, _NUMBER.size * _number)[0] + count)

    @property
    def sum(self) -> int:
        return sum(one for (one,) in _NUMBER.iter_unpack(self._shared[:]))


class _Died(CheckpointError):
    def __init__(self) -> None:
        super().__init__("a process that helped has died", "try again")


def in_parallel(count: int, work: Callable[[int], T], *, again: bool = False) -> list[T]:
    """What ``work(n)`` returns for each n below ``count``, at most ``how_many()``; 0 is done in this process. What
    it returns or raises is pickled. When one fails the others are ended, and its exception comes out here.

    With ``again`` this process does the part of one that died, or that could not be started, as well: the work
    must bear to be begun twice. Without, CheckpointError or OSError.
    """
    children: dict[int, _Child[T]] = {}
    try:
        for number in range(1, count):
            try:
                children[number] = _Child(work, number)
            except OSError:  # no process, or no memory, for another one
                if not again:
                    raise
        results = [work(0)]
        for number in range(1, count):
            try:
                results.append(children[number].result() if number in children else work(number))
            except _Died:
                if not again:
                    raise
                results.append(work(number))
        return results
    finally:
        for child in children.values():
            child.end()


class _Child(Generic[T]):
    def __init__(self, work: Callable[[int], T], number: int) -> None:
        self._answer, answer = os.pipe2(os.O_CLOEXEC)
        try:
            self._pid = os.fork()
        except OSError:
            os.close(self._answer)
            os.close(answer)
            raise
        if self._pid == 0:
            _be_child(work, number, answer)
        os.close(answer)

    def result(self) -> T:
        with os.fdopen(os.dup(self._answer), "rb") as file:
            data = file.read()
        if not data.endswith(_WHOLE):
            raise _Died
        well, result = pickle.loads(data)
        if not well:
            raise result
        return cast(T, result)

    def end(self) -> None:
        os.close(self._answer)
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _be_child(work: Callable[[int], object], number: int, answer: int) -> NoReturn:
    global _number
    _number = number
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for each in _QUIET:
            signal.signal(each, signal.SIG_IGN)  # the parent hears of it and ends us
        die_with_parent(signal.SIGKILL)
        try:
            data = pickle.dumps((True, work(number)))
        except Exception as error:
            data = pickle.dumps((False, error))
        with os.fdopen(answer, "wb") as file:
            file.write(data + _WHOLE)
    finally:
        os._exit(0)
