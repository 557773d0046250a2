"""How long work tells a person how far it is. The default says nothing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then, at most every few thousand entries. Must be cheap and must not raise."""

    def __call__(self, phase: str, entries: int, octets: int = 0) -> None: ...


def silent(phase: str, entries: int, octets: int = 0) -> None:
    """The progress of work that nobody watches."""
