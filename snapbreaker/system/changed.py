"""One name of a table of the system's state, as it was and as it is."""

from __future__ import annotations

from snapbreaker.dataclass import dataclass

Table = dict[str, str]


@dataclass(frozen=True, slots=True)
class Changed:
    """One name of a table: what it was and what it is; empty where it is not there."""

    table: str
    name: str
    was: str
    now: str

    def text(self) -> str:
        """In words, seen from the older state."""
        if not self.was:
            return f"{self.now}, was not there" if self.now else "was not there"
        if not self.now:
            return f"is gone, was {self.was}"
        return f"{self.now} instead of {self.was}"
