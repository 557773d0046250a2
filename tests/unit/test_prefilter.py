"""Only segments that hold a needle are tried, and all of these, also in a flood whose lines were seen before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from snapbreaker.monitor import prefilter
from snapbreaker.monitor.lines import segments
from snapbreaker.monitor.packs import BUILT_IN, builtin_pack
from snapbreaker.monitor.prefilter import Prefilter, words_of
from snapbreaker.monitor.rules import RuleSet

LOGS = sorted((Path(__file__).parent.parent / "corpus").glob("*/*.log"))
PHRASES = [*map(words_of, ("404", "not found", "ran 0 tests", "i/o")), words_of("x1y")]
LITERALS = [b"error", b"0): ", b".py:7", b"\xe2\x9c\x97"]


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    with patch.object(prefilter, "scanner", lambda *_: None):
        yield


def check(one: Prefilter, data: bytes) -> None:
    """What ``needles`` finds in each segment is found, and no other but what goes over a line's end."""
    held = [(a, b) for a, b in segments(data) if one.needles(data[a:b])]
    assert [(a, b) for a, b in one.spans(data) if one.needles(data[a:b])] == held


def test_recorded_output_again_and_again() -> None:
    rules = RuleSet(map(builtin_pack, BUILT_IN))
    for _ in range(2):
        for log in LOGS:
            check(rules.prefilter, log.read_bytes())


def test_a_flood_of_lines_that_differ_in_their_numbers() -> None:
    one, numbers = Prefilter(PHRASES, LITERALS), random.Random(1)
    for _ in range(20):
        lines = [
            numbers.choice((b"GET /%d %d", b"at x%dy", b"main.py:%d %d", b"ran %d tests", b"f(%d): ", b"%d ok"))
            for _ in range(500)
        ]
        ends = [numbers.choice((b"\n", b"\n", b"\r\n", b"\r")) for _ in lines]
        data = b"".join(
            line.replace(b"%d", b"%d" % numbers.choice((0, 1, 7, 12, 123, 404))) + end
            for line, end in zip(lines, ends, strict=True)
        )
        check(one, data)


@pytest.mark.parametrize("seed", range(3))
def test_random_output(seed: int) -> None:
    one, letters = Prefilter(PHRASES, LITERALS), random.Random(seed)
    for _ in range(20):
        check(one, bytes(letters.choices(b"\r\n  ero04not fund1):.py7xyi/\xe2\x9c\x97", k=10_000)))


def test_a_flood_of_ever_new_lines_is_not_remembered_for_ever() -> None:
    one = Prefilter(PHRASES, LITERALS)
    names = random.Random(1)
    for _ in range(30):
        line = b" ".join(names.randbytes(3).hex().encode() for _ in range(6))
        one.spans(b"\n".join(line[n % 30 :] + b"a" * (n % 400) for n in range(2000)) + b"\n")
    assert len(one._innocent) <= prefilter._MOST
    assert max(map(len, one._innocent)) <= prefilter._LONGEST
