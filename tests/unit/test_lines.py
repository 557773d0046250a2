"""Lines as a person would have read them on a terminal."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapbreaker.issue import Issue, IssueType
from snapbreaker.monitor.history import KEPT, History
from snapbreaker.monitor.lines import (
    BLOCK,
    OVERLAP,
    PIECE,
    Block,
    LineReader,
    line_feeds,
    pieces,
    printed,
    segments,
)


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        (b"plain\n", b"plain\n"),
        (b"pty\r\nline\r\r\n", b"pty\nline\r\n"),
        (b"pty\r\nline\r\n", b"pty\nline\n"),
        (b"10 %\rdone\n\r\n", b"10 %\rdone\n\n"),
        (b"\x1b[1;31mERR\x1b[0mOR\n", b"ERROR\n"),
        (b"\x1b]0;title error\x07text\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\n", b"textlink\n"),
        (b"\x1b7\x1b[24;0fProgress: [ 20%]\x1b8E: x\n", b"\r\rProgress: [ 20%]\rE: x\n"),
        (b"a\x1b[3Cb\x1b[K\x1b[?25l\x1b(B\n", b"a b\n"),
        (b"E\x08ER\x08R\n", b"ER\n"),
        (b"|\x08/\x08-\x08done\n", b"done\n"),
        (b"\x08\x08x\nab\x08\x08\x08c\n", b"x\nc\n"),
        (b"E\x00R\x00R\x00\x07\n", b"ERR\n"),
        (b"lone escape \x1b\n", b"lone escape \n"),
        (b"\xff\xfe\n", b"\xff\xfe\n"),
    ],
)
def test_printed(raw: bytes, seen: bytes) -> None:
    assert printed(raw) == seen


def test_backspaces_of_a_long_line_take_linear_time() -> None:
    assert printed(b"a" * 200_000 + b"\x08" * 200_000 + b"b") == b"b"


def test_a_long_line_beside_one_with_a_backspace_takes_linear_time() -> None:
    assert printed(b"a" * 500_000 + b"\nb\x08\n") == b"a" * 500_000 + b"\n\n"


@given(
    st.lists(st.sampled_from([b"\n", b"\r\n", b"x", b"word", b"-" * 70 + b"\n"]), max_size=200).map(b"".join),
    st.integers(1, 100),
    st.integers(0, 30_000),
    st.integers(0, 30_000),
)
def test_line_feeds_are_counted_however_dense_they_are(text: bytes, times: int, start: int, end: int) -> None:
    data = text * times
    assert line_feeds(data, start, min(end, len(data))) == data.count(b"\n", start, min(end, len(data)))


@pytest.mark.parametrize("raw", [b"a\r", b"a\r\n\r", b"a\rb\r\n", b"a\r\r\n", b"a\r\nb\r\n", b"\r\n", b"\r"])
def test_a_carriage_return_stays_where_no_line_feed_follows(raw: bytes) -> None:
    assert printed(raw) == raw.replace(b"\r\n", b"\n")


def test_segments() -> None:
    data = b"one\rtwo\n\nthree\r\r"
    assert [data[a:b] for a, b in segments(data)] == [b"one", b"two", b"three"]


def _lines(chunks: list[bytes]) -> list[tuple[int, bytes]]:
    reader = LineReader()
    blocks = [reader.feed(chunk) for chunk in chunks] + [reader.close()]
    found = []
    for block in blocks:
        if block:
            for start, end in segments(block.data):
                found.append((block.first + block.data.count(b"\n", 0, start), block.data[start:end]))
    return found


@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\x1b", b"\r\n").replace(b"\x08", b"\n"))))
def test_chunks_make_no_difference(chunks: list[bytes]) -> None:
    assert _lines(chunks) == _lines([b"".join(chunks)])


def test_line_feed_that_comes_after_its_carriage_return() -> None:
    assert _lines([b"one\r", b"\ntwo\r", b"\n"]) == [(1, b"one"), (2, b"two")]


def test_pieces_overlap_and_cut_between_words() -> None:
    text = b" ".join(b"word%d" % n for n in range(5000))
    parts = list(pieces(text))
    assert len(parts) > 4
    assert all(len(part) <= PIECE for part in parts)
    assert {word for part in parts for word in part.split()} == set(text.split())
    for one, two in pairwise(parts):
        assert two[: OVERLAP // 4] in one


def test_pieces_of_one_endless_word() -> None:
    parts = list(pieces(b"x" * (3 * PIECE)))
    assert sum(map(len, parts)) >= 3 * PIECE
    assert max(map(len, parts)) <= PIECE


def test_endless_line_is_handed_out_with_bounded_memory() -> None:
    reader = LineReader()
    got = 0
    for _ in range(40):
        block = reader.feed(b"word " * (BLOCK // 50))
        got += len(block.data) if block else 0
    assert got >= 38 * 5 * (BLOCK // 50) - 2 * BLOCK
    assert len(reader.partial_data()) <= 2 * BLOCK
    assert reader.number == 1


def _issue(number: int, line: str) -> Issue:
    return Issue(IssueType.ERROR, "r", "p/r", line, "out", number)


def test_history_around_an_issue() -> None:
    history = History()
    history.add("out", Block(1, b"a\n10%\r20%\nboom\rhidden\n"), 1.0)
    history.add("err", Block(1, b"x\n"), 2.0)
    history.add("out", Block(4, b"d\n\ne\n"), 3.0)
    assert [(line.source, line.number, line.text) for line in history.last(4)] == [
        ("err", 1, "x"),
        ("out", 4, "d"),
        ("out", 5, ""),
        ("out", 6, "e"),
    ]
    assert [line.text for line in history.last(2, _issue(3, "boom"))] == ["20%", "boom"]
    assert [line.text for line in history.after(_issue(3, "boom"), 2)] == ["x", "d"]
    assert history.last(0) == []


def test_history_of_a_line_in_several_blocks_shows_its_last_state() -> None:
    history = History()
    history.add("out", Block(1, b"10%\r"), 1.0)
    history.add("out", Block(1, b"20%\r"), 1.0)
    history.add("out", Block(1, b"\nnext\n"), 1.0)
    assert [line.text for line in history.last(5)] == ["20%", "next"]


def test_history_is_bounded() -> None:
    history = History()
    for number in range(1, 3000):
        history.add("out", Block(number, b"y" * 4000 + b"\n"), 0.0)
    assert sum(len(entry.block.data) for entry in history._entries) <= KEPT
    assert history.last(1)[0].number == 2999
