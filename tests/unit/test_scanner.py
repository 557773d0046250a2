"""google-re2 finds the segments that plain Python finds."""

from __future__ import annotations

import os
import random
from pathlib import Path
from unittest.mock import patch

import pytest

from snapbreaker.monitor import prefilter
from snapbreaker.monitor.packs import BUILT_IN, builtin_pack
from snapbreaker.monitor.prefilter import Prefilter, words_of
from snapbreaker.monitor.rules import RuleSet

pytest.importorskip("re2")

LOGS = sorted((Path(__file__).parent.parent / "corpus").glob("*/*.log"))
LETTERS = b"\r\n  error wan'E.0f-\xc3\xa9:"


def _both(phrases: set[bytes], literals: set[bytes]) -> tuple[Prefilter, Prefilter]:
    with patch.object(prefilter, "scanner", lambda *_: None):
        plain = Prefilter(phrases, literals)
    return plain, Prefilter(phrases, literals)


def _held(one: Prefilter, by: Prefilter, data: bytes) -> list[tuple[int, int]]:
    """A phrase may go over a line's end in one of them: nothing comes of that."""
    return [(start, end) for start, end in one.spans(data) if by.needles(data[start:end])]


def test_in_recorded_and_in_random_output() -> None:
    rules = RuleSet(map(builtin_pack, BUILT_IN))
    prefiltered = [one for pack in rules.packs for one in pack.rules if one.type.trips]
    plain, fast = _both(
        {phrase for one in prefiltered for phrase in one.phrases},
        {literal for one in prefiltered for literal in one.literals},
    )
    letters = random.Random(1)
    texts = [path.read_bytes() for path in LOGS] + [os.urandom(100_000)]
    texts += [bytes(letters.choices(LETTERS, k=20_000)) for _ in range(20)]
    for data in texts:
        assert _held(fast, plain, data) == _held(plain, plain, data)


@pytest.mark.parametrize(("phrases", "literals"), [([], []), (["no such file"], []), ([], [b"***", b"e: ("])])
def test_with_few_needles_or_none(phrases: list[str], literals: list[bytes]) -> None:
    data = b"No such-file *** E: (x\nnosuch file\r**\nE:\nno such\nfile"
    plain, fast = _both(set(map(words_of, phrases)), set(literals))
    assert _held(fast, plain, data) == _held(plain, plain, data)
