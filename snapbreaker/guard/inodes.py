"""A set of inode numbers that takes little memory for a million of them."""

from __future__ import annotations

from collections.abc import Iterable

_SHIFT = 12  # one page for 4096 numbers
_LOW = (1 << _SHIFT) - 1
_PAGE = 1 << (_SHIFT - 3)  # bytes


class InodeSet:
    """Pages of bits: filesystems give numbers in rows, so 150,000 files take some 50 kB (a set: 10 MB)."""

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._pages: dict[int, bytearray] = {}
        self._count = 0
        for number in numbers:
            self.add(number)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        page = self._pages.get(number >> _SHIFT)
        return page is not None and bool(page[(number & _LOW) >> 3] & 1 << (number & 7))

    def add(self, number: int) -> None:
        page = self._pages.get(number >> _SHIFT)
        if page is None:
            page = self._pages[number >> _SHIFT] = bytearray(_PAGE)
        bit = 1 << (number & 7)
        at = (number & _LOW) >> 3
        self._count += not page[at] & bit
        page[at] |= bit

    def add_near(self, first: int, numbers: Iterable[int]) -> None:
        """Add ``numbers``, all in the page of ``first``: many at once take less time than one by one."""
        bits = 0
        for number in numbers:
            bits |= 1 << (number & _LOW)
        self._join(first >> _SHIFT, bits)

    def discard(self, number: int) -> None:
        if number in self:
            self._pages[number >> _SHIFT][(number & _LOW) >> 3] &= ~(1 << (number & 7))
            self._count -= 1

    def update(self, other: InodeSet) -> None:
        """Add all of another set."""
        for number, page in other._pages.items():
            self._join(number, int.from_bytes(page, "little"))

    def _join(self, number: int, bits: int) -> None:
        page = self._pages.setdefault(number, bytearray(_PAGE))
        mine = int.from_bytes(page, "little")
        self._count += (mine | bits).bit_count() - mine.bit_count()
        page[:] = (mine | bits).to_bytes(_PAGE, "little")
