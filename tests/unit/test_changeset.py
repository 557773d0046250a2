"""The stored form of a set of changes: everything comes back, and damage shows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapbreaker.errors import CheckpointError
from snapbreaker.files import changeset
from snapbreaker.files.changeset import ABSENT, Kind, Record, fingerprint
from snapbreaker.files.entry import Aspect, Details, Entry, sort_key
from snapbreaker.files.tree import Extent

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
TIMES = st.integers(-(2**34) * 10**9, 2**40 * 10**9)  # 64 bits of nanoseconds end in 2262
NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name)
ENTRIES = st.builds(
    Entry, NAMES, U32, U32, U32, st.integers(0, 2**63 - 1), TIMES, TIMES, U64, U64, U64, U64, st.booleans()
)
XATTRS = st.lists(st.tuples(NAMES, st.binary()), max_size=3).map(tuple)
DETAILS = st.builds(Details, U32, U32, XATTRS, st.binary(max_size=30), st.booleans())
EXTENTS = st.lists(st.builds(Extent, U64, U64, U64), max_size=3).map(tuple)
FILE = Entry(b"file", 0o100644, 0, 0, 5, 7, 9, 11, 1, 0)


@st.composite
def records(draw: st.DrawFn) -> Record:
    kind, aspects = draw(st.sampled_from(Kind)), draw(st.integers(0, 2 * Aspect.SPARSE - 1))
    entry = draw(st.none() | ENTRIES)
    path = entry.path if entry is not None else draw(NAMES)
    after = draw(st.binary(min_size=16, max_size=16))
    if entry is None:
        return Record(path, kind, aspects, domain=draw(U32), slot=draw(U32), after=after)
    return Record(path, kind, aspects, entry, draw(DETAILS), draw(EXTENTS), draw(U32), draw(U32), after)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@settings(max_examples=25, deadline=None)
@given(stored=st.lists(records(), max_size=6))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, stored: list[Record]) -> None:
    fd = os.open(tmp_path_factory.mktemp("set"), os.O_RDONLY | os.O_DIRECTORY)
    try:
        changeset.write(fd, b"set", stored)
        assert changeset.read(fd, b"set") == sorted(stored, key=lambda record: sort_key(record.path))
    finally:
        os.close(fd)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:40] + b"?" + data[41:], bytes])
def test_damage_is_noticed(directory: int, tmp_path: Path, damage: type[bytes]) -> None:
    changeset.write(directory, b"set", [Record(b"file", Kind.STORED, Aspect.CONTENT, FILE)])
    data = (tmp_path / "set").read_bytes()
    (tmp_path / "set").write_bytes(damage(data) if damage is not bytes else b"")
    with pytest.raises(CheckpointError, match="damaged"):
        changeset.read(directory, b"set")


def test_fingerprint_tells_changes_from_what_is_none() -> None:
    known = fingerprint(FILE, Details())
    assert known != ABSENT
    for same in (FILE._replace(ino=99), FILE._replace(ctime_ns=1), FILE._replace(nlink=2), FILE._replace(dev=8)):
        assert fingerprint(same, Details()) == known
    for other in (FILE._replace(size=6), FILE._replace(mtime_ns=8), FILE._replace(mode=0o100600)):
        assert fingerprint(other, Details()) != known
    assert fingerprint(FILE, Details(xattrs=((b"user.a", b"b"),))) != known
    directory = FILE._replace(mode=0o40755)
    assert fingerprint(directory._replace(mtime_ns=1, size=1), Details()) == fingerprint(directory, Details())
