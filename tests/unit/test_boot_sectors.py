"""What a disk says of itself may be anything: a guest, or who plugs it in, writes it."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from snapbreaker.system import boot_sectors
from snapbreaker.system.boot_sectors import _areas_of

GUID = bytes(range(16))
BIOS_BOOT = bytes.fromhex("4861682149646f6e744e656564454649")
OUTSIDE = [
    {"size": 0},
    {"size": 1},
    {"size": 0xFFFFFFFF},
    {"table": 1 << 63},
    {"table": 1 << 50},
    {"count": 0},
    {"start": 1 << 63, "last": (1 << 63) + 7},
    {"start": 9, "last": 2},
    {"start": (1 << 55) - 1, "last": 1 << 55},
    {"start": 4096, "last": 1 << 20},
]


def disk(path: Path, table: int = 2, count: int = 4, size: int = 128, start: int = 34, last: int = 41) -> str:
    head = bytearray(512)
    head[510:512] = b"\x55\xaa"
    header = struct.pack("<8s4x4x4x4x8x8x8x8x16sQII", b"EFI PART", GUID, table, count, size)
    entry = struct.pack("<16s16sQQ", BIOS_BOOT, GUID, start, last)
    path.write_bytes(bytes(head) + header.ljust(512, b"\0") + entry.ljust(128, b"\0") + bytes(1 << 20))
    return str(path)


def test_a_table_of_partitions(tmp_path: Path) -> None:
    code, loader = _areas_of(disk(tmp_path / "disk"), 1 << 20)
    assert (code.start, code.size) == (0, 440)
    assert (loader.start, loader.size) == (34 * 512, 8 * 512)


@pytest.mark.parametrize("facts", OUTSIDE, ids=str)
def test_a_table_that_makes_no_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: dict[str, int]
) -> None:
    """Only the code in its first sector is known then; it ends no checkpoint, nor a rollback in the middle."""
    device = disk(tmp_path / "disk", **facts)
    monkeypatch.setattr(boot_sectors, "_areas", lambda: list(_areas_of(device, 1 << 20)))
    digests, contents = boot_sectors.read()
    assert list(digests) == [f"code of disk {GUID.hex()}"]
    assert boot_sectors.put_back(digests, contents) == []


def test_what_is_put_back_is_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = disk(tmp_path / "disk")
    monkeypatch.setattr(boot_sectors, "_areas", lambda: list(_areas_of(device, 1 << 20)))
    digests, contents = boot_sectors.read()
    with open(device, "r+b") as file:
        file.seek(34 * 512 + 3000)
        file.write(b"changed")
    genuine = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: genuine(fd, data[:1000], at))
    assert boot_sectors.put_back(digests, contents) == [f"loader in partition {GUID.hex()}"]
    assert boot_sectors.read()[0] == digests
