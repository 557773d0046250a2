"""Sets of inode numbers, beside Python's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snapbreaker.guard.inodes import InodeSet

NUMBERS = st.sets(st.integers(0, 3 << 12), max_size=40)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_as_a_set(added: set[int], updated: set[int], discarded: set[int]) -> None:
    inodes = InodeSet(added)
    inodes.update(InodeSet(updated))
    for number in discarded:
        inodes.discard(number)
    expected = (added | updated) - discarded
    assert len(inodes) == len(expected)
    assert {number for number in range(4 << 12) if number in inodes} == expected


@given(NUMBERS, st.integers(0, 2).map(lambda page: page << 12), st.sets(st.integers(0, 4095)))
def test_many_of_one_page(added: set[int], page: int, near: set[int]) -> None:
    inodes = InodeSet(added)
    inodes.add_near(page, [page + number for number in near])
    expected = added | {page + number for number in near}
    assert len(inodes) == len(expected)
    assert all(number in inodes for number in expected)
