"""What is saved because it is opened often, and how much of it."""

from __future__ import annotations

from snapbreaker.guard import hot
from snapbreaker.guard.hot import Hot

MIB = 1 << 20


def saved(one: Hot, inode: int, size: int, times: int) -> int:
    return sum(one.opened(inode, size) for _ in range(times))


def test_a_file_is_saved_once() -> None:
    one = Hot(1 << 40)
    assert saved(one, 1, 100, hot._OPENS - 1) == 0
    assert saved(one, 1, 100, 100) == 1
    assert saved(one, 2, 5 * MIB, 100) == 0


def test_there_is_an_end_to_the_space_that_it_takes() -> None:
    one = Hot(1 << 40)
    assert sum(saved(one, inode, 4 * MIB, 8) for inode in range(100)) == 8
    little = Hot(64 * MIB)
    assert sum(saved(little, inode, MIB // 4, 8) for inode in range(100)) == 4
    assert not saved(Hot(0), 1, 1, 100)
