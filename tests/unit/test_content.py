"""Copying and comparing the bytes of files with holes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapbreaker.files.content import copy_content, plain_content, same_content, same_sparseness
from snapbreaker.files.tree import Content, Extent

MIB = 1 << 20
# (offset, data) pairs and a size: dense, empty, all hole, holes at the start, in the middle, at the end.
SHAPES: dict[str, tuple[list[tuple[int, bytes]], int]] = {
    "empty": ([], 0),
    "small": ([(0, b"hello")], 5),
    "dense": ([(0, os.urandom(3 * MIB + 17))], 3 * MIB + 17),
    "hole": ([], 3 * MIB + 1),
    "tail": ([(0, b"x" * 5000)], 2 * MIB),
    "head": ([(MIB, b"y" * 10)], MIB + 10),
    "islands": ([(4096 * n, b"z" * 4096) for n in range(0, 64, 3)], 4096 * 64 + 1),
}


def build(path: Path, shape: str) -> Path:
    pieces, size = SHAPES[shape]
    with open(path, "wb") as file:
        for offset, data in pieces:
            os.pwrite(file.fileno(), data, offset)
        os.ftruncate(file.fileno(), size)
    return path


def opened(path: Path) -> Content:
    return plain_content(os.open(path, os.O_RDONLY), b"")


@pytest.mark.parametrize("clone", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_copy_keeps_bytes_holes_and_size(tmp_path: Path, shape: str, clone: bool) -> None:
    source = opened(build(tmp_path / "source", shape))
    with open(tmp_path / "copy", "wb") as copy:
        copied = copy_content(source, copy.fileno(), clone)
    assert copied in (0, sum(extent.length for extent in source.extents))
    twin = opened(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "source").read_bytes()
    assert same_content(source, twin)
    assert same_sparseness(source, twin)
    source.close()
    twin.close()


@pytest.mark.parametrize("shape", SHAPES)
def test_copy_out_of_a_pack(tmp_path: Path, shape: str) -> None:
    source = opened(build(tmp_path / "source", shape))
    with open(tmp_path / "pack", "wb") as pack:
        pack.write(b"before")
        extents = []
        for extent in source.extents:
            extents.append(Extent(extent.offset, pack.tell(), extent.length))
            pack.write(os.pread(source.fd, extent.length, extent.source))
    packed = Content(os.open(tmp_path / "pack", os.O_RDONLY), source.size, tuple(extents))
    assert same_content(source, packed)
    assert same_sparseness(source, packed)
    with open(tmp_path / "copy", "wb") as copy:
        copy_content(packed, copy.fileno())
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "source").read_bytes()
    source.close()
    packed.close()


@pytest.mark.parametrize("shape", [name for name in SHAPES if name != "empty"])
def test_one_byte_differs(tmp_path: Path, shape: str) -> None:
    source = opened(build(tmp_path / "source", shape))
    for offset in {0, source.size // 2, source.size - 1}:
        other = build(tmp_path / "other", shape)
        with open(other, "r+b") as file:
            before = os.pread(file.fileno(), 1, offset)
            os.pwrite(file.fileno(), bytes([before[0] ^ 1]), offset)
        changed = opened(other)
        assert not same_content(source, changed)
        assert not same_content(changed, source)
        changed.close()
    source.close()


def test_zeros_equal_a_hole_in_content_but_not_in_sparseness(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(MIB))
    with open(tmp_path / "hole", "wb") as file:
        file.truncate(MIB)
    zeros, hole = opened(tmp_path / "zeros"), opened(tmp_path / "hole")
    assert same_content(zeros, hole)
    assert not same_sparseness(zeros, hole)
    assert not same_sparseness(hole, zeros)
    zeros.close()
    hole.close()


def test_other_size_is_other_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"abc\0")
    a, b = opened(tmp_path / "a"), opened(tmp_path / "b")
    assert not same_content(a, b)
    a.close()
    b.close()


def test_a_source_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    path = build(tmp_path / "source", "dense")
    source = opened(path)
    os.truncate(path, MIB)
    with open(tmp_path / "copy", "wb") as copy, pytest.raises(OSError, match="shorter"):
        copy_content(source, copy.fileno())
    source.close()
