"""The shape that every kind of kernel state has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from snapbreaker.dataclass import dataclass
from snapbreaker.system.changed import Changed, Table

Read = tuple[Table, Table]
"""By name the state of each, in words; and by name what ``put_back`` needs to make it again."""


@dataclass(frozen=True, slots=True)
class Old:
    """What was recorded: ``contents`` by name, ``age`` seconds ago, and all ``addresses`` of the machine."""

    contents: Table
    age: float = 0.0
    addresses: frozenset[str] = frozenset()


def _never(_: Changed) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Kind:
    """``table`` names it in the record, ``word`` one of it to a person.

    ``put_back`` makes each of the changes what it ``was``, as far as it can: it returns what refused, by name with
    the reason, and raises OSError where nothing of it can be done. ``nobodys`` tells changes that come by
    themselves, or may be somebody else's: they are told, and no difference.
    """

    table: str
    word: str
    read: Callable[[], Read]
    put_back: Callable[[Sequence[Changed], Old], dict[str, str]]
    nobodys: Callable[[Changed], bool] = _never
