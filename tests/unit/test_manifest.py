"""The stored form of a walk: everything comes back, and damage is seen."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapbreaker.errors import CheckpointError
from snapbreaker.files.entry import Details, Entry, sort_key
from snapbreaker.files.manifest import ManifestTree
from snapbreaker.files.manifest_writer import ManifestWriter
from snapbreaker.files.tree import Extent

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
# From before 1902 until after 2446: what 34 bits of seconds (ext4) and more (btrfs) can hold.
TIMES = st.integers(-(2**34) * 10**9, 2**40 * 10**9)
NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & set(b"/\0"))
PATHS = st.lists(NAMES, max_size=5).map(b"/".join)
XATTRS = st.lists(st.tuples(NAMES, st.binary(max_size=40)), max_size=3).map(lambda found: tuple(sorted(found)))
DETAILS = st.one_of(
    st.just(Details()), st.builds(Details, U32, U32, XATTRS, st.binary(max_size=30), st.booleans())
)
EXTENTS = st.none() | st.lists(st.builds(Extent, U64, U64, U64), max_size=3).map(tuple)
ENTRIES = st.builds(Entry, st.just(b""), U32, U32, U32, U64, TIMES, TIMES, U64, U32, U64, U64, st.booleans())
ROWS = st.dictionaries(PATHS, st.tuples(ENTRIES, DETAILS, EXTENTS), max_size=30)

Rows = dict[bytes, tuple[Entry, Details, tuple[Extent, ...] | None]]


def file_entry(path: bytes, size: int = 0) -> Entry:
    return Entry(path, stat.S_IFREG | 0o644, 1, 2, size, 3, 4, 5, 1, 0, 6)


def write(path: Path, count: int) -> list[Entry]:
    entries = [file_entry(b"%06d" % number) for number in range(count)]
    with ManifestWriter(str(path)) as writer:
        for entry in entries:
            writer.add(entry, Details())
    return entries


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(ROWS)
def test_round_trip(tmp_path: Path, rows: Rows) -> None:
    path = str(tmp_path / "manifest")
    wanted = [entry._replace(path=name) for name, (entry, _, _) in rows.items()]
    wanted.sort(key=lambda entry: sort_key(entry.path))
    with ManifestWriter(path) as writer:
        for entry in wanted:
            writer.add(entry, *rows[entry.path][1:])
    with ManifestTree(path) as tree:
        assert isinstance(tree, ManifestTree)
        assert list(tree.walk()) == wanted
        assert tree.records == len(wanted)
        for entry in wanted:
            _, details, extents = rows[entry.path]
            assert tree.lookup(entry.path) == entry
            assert tree.details(entry) == details
            if extents is None:
                with pytest.raises(CheckpointError):
                    tree.content(entry)
            else:
                content = tree.content(entry)
                assert (content.extents, content.size, content.owned) == (extents, entry.size, False)
            inside = [e for e in wanted if e.path == entry.path or e.path.startswith(entry.path + b"/")]
            assert list(tree.walk(entry.path)) == (inside if entry.path else wanted)


def test_many_blocks(tmp_path: Path) -> None:
    entries = write(tmp_path / "manifest", 3000)
    with ManifestTree(str(tmp_path / "manifest")) as tree:
        assert list(tree.walk()) == entries
        assert [tree.lookup(entry.path) for entry in reversed(entries)] == entries[::-1]
        assert tree.lookup(b"000511x") is None
        assert tree.lookup(b"") is None
        assert tree.lookup(b"zzz") is None
        assert list(tree.walk(b"002999")) == entries[-1:]
        assert list(tree.walk(b"0029")) == []


def test_content_comes_from_the_pack(tmp_path: Path) -> None:
    (tmp_path / "pack").write_bytes(b"..hello..world")
    entry = file_entry(b"f", 5000)
    with ManifestWriter(str(tmp_path / "manifest")) as writer:
        writer.add(entry, Details(), (Extent(0, 2, 5), Extent(4096, 9, 5)))
    pack = os.open(tmp_path / "pack", os.O_RDONLY)
    with ManifestTree(str(tmp_path / "manifest"), pack) as tree:
        content = tree.content(entry)
        assert [os.pread(content.fd, e.length, e.source) for e in content.extents] == [b"hello", b"world"]
        content.close()
    os.close(pack)


@pytest.mark.parametrize("cut", [0, 1, 10, 30, 100, 5000])
def test_truncated_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "manifest"
    write(path, 2000)
    data = path.read_bytes()
    path.write_bytes(data[:-cut] if cut else b"")
    with pytest.raises(CheckpointError):
        ManifestTree(str(path))


def test_each_altered_byte_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    write(path, 20)
    data = bytearray(path.read_bytes())
    for index in range(len(data)):
        data[index] ^= 0x40
        path.write_bytes(data)
        with pytest.raises(CheckpointError):
            ManifestTree(str(path))
        data[index] ^= 0x40
    path.write_bytes(data + b"x")
    with pytest.raises(CheckpointError):
        ManifestTree(str(path))


def test_nothing_is_in_place_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    writer = ManifestWriter(str(path))
    writer.add(file_entry(b"a"), Details())
    assert not path.exists()
    writer.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["manifest"]
    with pytest.raises(RuntimeError, match="on the way"), ManifestWriter(str(tmp_path / "other")):
        raise RuntimeError("on the way")
    assert [entry.name for entry in tmp_path.iterdir()] == ["manifest"]


def test_wrong_order_is_refused(tmp_path: Path) -> None:
    writer = ManifestWriter(str(tmp_path / "manifest"))
    writer.add(file_entry(b"a-b"), Details())
    for path in (b"a-b", b"a", b"a/b"):
        with pytest.raises(ValueError, match="does not come after"):
            writer.add(file_entry(path), Details())
    writer.abort()
    writer.abort()
    assert list(tmp_path.iterdir()) == []
