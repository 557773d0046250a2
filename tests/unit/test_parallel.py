"""Work in several processes: what comes back, and what becomes of the part of one that dies or cannot be had."""

from __future__ import annotations

import os
import signal

import pytest

from snapbreaker import parallel
from snapbreaker.errors import CheckpointError
from snapbreaker.parallel import Counts, in_parallel


def test_each_part_is_done_once() -> None:
    counts = Counts()

    def work(number: int) -> tuple[int, int]:
        counts.add(number + 1)
        return number, parallel.number()

    assert in_parallel(3, work) == [(0, 0), (1, 1), (2, 2)]
    assert counts.sum == 6


def test_an_error_comes_out_here() -> None:
    def work(number: int) -> None:
        if number == 1:
            raise FileNotFoundError(2, "No such file", "name")

    with pytest.raises(FileNotFoundError, match="name"):
        in_parallel(2, work, again=True)


@pytest.mark.parametrize("again", [True, False])
def test_one_that_dies(again: bool) -> None:
    me = os.getpid()

    def work(number: int) -> int:
        if number == 1 and os.getpid() != me:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    if again:
        assert in_parallel(3, work, again=True) == [0, 1, 2]
    else:
        with pytest.raises(CheckpointError, match="died"):
            in_parallel(3, work)


@pytest.mark.parametrize("again", [True, False])
def test_none_can_be_had(monkeypatch: pytest.MonkeyPatch, again: bool) -> None:
    def fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    before = os.listdir("/proc/self/fd")
    if again:
        assert in_parallel(3, lambda number: number, again=True) == [0, 1, 2]
    else:
        with pytest.raises(BlockingIOError):
            in_parallel(3, lambda number: number)
    assert len(os.listdir("/proc/self/fd")) == len(before)
