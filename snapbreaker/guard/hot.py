"""Which files are opened so often that to save them once costs less than to be asked about each time."""

from __future__ import annotations

_OPENS = 3
_SIZE = 4 << 20  # bytes of one of them
_WHOLE = 32 << 20  # bytes of all
_SHARE = 64  # of the free space no more than one in so many
_REMEMBERED = 4096


class Hot:
    """Libraries, the shell and its tools, mostly. ``free`` are the bytes that are free where they are saved."""

    def __init__(self, free: int) -> None:
        self._opens: dict[int, int] = {}
        self._room = min(_WHOLE, free // _SHARE)

    def opened(self, inode: int, size: int) -> bool:
        """Note that a file was opened once more; whether it is to be saved now."""
        if size > min(_SIZE, self._room):
            return False
        if len(self._opens) >= _REMEMBERED:
            self._opens.clear()
        count = self._opens[inode] = self._opens.get(inode, 0) + 1
        if count != _OPENS:
            return False
        self._room -= size
        return True
