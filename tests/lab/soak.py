"""How long random tests go on: SNAPBREAKER_SOAK=N makes N times as many attempts, with another seed each time."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import TypeVar

import pytest

FACTOR = max(1, int(os.environ.get("SNAPBREAKER_SOAK") or 1))
IS_LONG = FACTOR > 1
Case = TypeVar("Case")
# A mark: the test takes a minute or more, and what it shows is shown by shorter ones in part.
only_long = pytest.mark.skipif(not IS_LONG, reason="takes minutes: SNAPBREAKER_SOAK=2")


def times(count: int) -> int:
    """How many attempts to make of what is tried ``count`` times in an ordinary run."""
    return count * FACTOR


def cases(few: Sequence[Case], more: Sequence[Case]) -> list[Case]:
    """Parameters of a test: the few, and in a long run more of their kind."""
    return [*few, *(more if IS_LONG else ())]


def dice(seed: int) -> random.Random:
    """The same in each ordinary run. A long one prints its seed, which SNAPBREAKER_SEED sets."""
    if IS_LONG:
        seed = int(os.environ.get("SNAPBREAKER_SEED") or random.randrange(1 << 32))
        print(f"SNAPBREAKER_SEED={seed}")
    return random.Random(seed)
