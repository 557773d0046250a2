"""A set of inode numbers that takes little memory for a million of them."""

from __future__ import annotations

from collections.abc import Iterable

_SHIFT = 12  # one page for 4096 numbers
_LOW = (1 << _SHIFT) - 1


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
            page = self._pages[number >> _SHIFT] = bytearray(1 << (_SHIFT - 3))
        bit = 1 << (number & 7)
        at = (number & _LOW) >> 3
        self._count += not page[at] & bit
        page[at] |= bit

    def discard(self, number: int) -> None:
        if number in self:
            self._pages[number >> _SHIFT][(number & _LOW) >> 3] &= ~(1 << (number & 7))
            self._count -= 1

    def update(self, other: InodeSet) -> None:
        """Add all of another set."""
        for number, page in other._pages.items():
            mine = self._pages.setdefault(number, bytearray(len(page)))
            both = int.from_bytes(mine, "little") | int.from_bytes(page, "little")
            self._count += both.bit_count() - int.from_bytes(mine, "little").bit_count()
            mine[:] = both.to_bytes(len(page), "little")
