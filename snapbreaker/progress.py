"""How long work tells a person how far it is. The default says nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

STEP = 32 << 20  # bytes of one file after which ``moved`` is called

hear: Callable[[int], None] | None = None  # who shows progress: told of bytes inside of one file
wipe: Callable[[], None] | None = None  # takes away what is shown now


class Progress(Protocol):
    """Called now and then, at most every few thousand entries. Must be cheap and must not raise."""

    def __call__(self, phase: str, entries: int, octets: int = 0) -> None: ...


def silent(phase: str, entries: int, octets: int = 0) -> None:
    """The progress of work that nobody watches."""


def moved(octets: int) -> None:
    """Some more bytes of a large file were copied or compared: only this says that work goes on."""
    if hear is not None:
        hear(octets)


def clear() -> None:
    """Take the line of progress away, before somebody else writes to the terminal."""
    if wipe is not None:
        wipe()
