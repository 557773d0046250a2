"""Disk images with a table of partitions, and a boot loader of random bytes where BIOS would look for it."""

from __future__ import annotations

import os
import struct
import uuid
import zlib
from pathlib import Path

SECTOR, FIRST = 512, 2048  # bytes; where the first partition begins, in sectors
BIOS_BOOT, LINUX = (
    uuid.UUID("21686148-6449-6E6F-744E-656564454649"),
    uuid.UUID("0FC63DAF-8483-4772-8E79-3D69D8477DE4"),
)


def mbr(path: Path, size: int, signature: int = 0x5EEDB007) -> None:
    """One partition from 1 MiB on; boot code, and a loader in the gap."""
    with path.open("wb") as file:
        file.truncate(size)
        file.write(os.urandom(440) + struct.pack("<IH", signature, 0))
        file.write(_mbr_entry(0x83, FIRST, size // SECTOR - FIRST) + bytes(48) + b"\x55\xaa")
        file.write(os.urandom(60_000))


def gpt(path: Path, size: int) -> None:
    """A BIOS boot partition of 1 MiB with a loader, and one for Linux."""
    sectors = size // SECTOR
    table = b""
    for number, (kind, first, last) in enumerate(
        [(BIOS_BOOT, FIRST, 2 * FIRST - 1), (LINUX, 2 * FIRST, sectors - FIRST)]
    ):
        table += kind.bytes_le + uuid.UUID(int=77 + number).bytes_le + struct.pack("<QQQ72x", first, last, 0)
    table = table.ljust(128 * 128, b"\0")
    disk = uuid.UUID("5EED0000-0000-4000-8000-000000000002").bytes_le
    with path.open("wb") as file:
        file.truncate(size)
        file.write(os.urandom(440) + bytes(6) + _mbr_entry(0xEE, 1, sectors - 1) + bytes(48) + b"\x55\xaa")
        file.write(_header(1, sectors - 1, 2, sectors, disk, table))
        file.seek(2 * SECTOR)
        file.write(table)
        file.seek(FIRST * SECTOR)
        file.write(os.urandom(60_000))
        file.seek((sectors - 33) * SECTOR)
        file.write(table)
        file.write(_header(sectors - 1, 1, sectors - 33, sectors, disk, table))


def _mbr_entry(kind: int, first: int, count: int) -> bytes:
    return struct.pack("<B3sB3sII", 0, bytes(3), kind, bytes(3), first, count)


def _header(own: int, other: int, table_at: int, sectors: int, disk: bytes, table: bytes) -> bytes:
    """UEFI specification, 5.3.2."""

    def packed(crc: int) -> bytes:
        places = struct.pack("<QQQQ16sQ", own, other, 34, sectors - 34, disk, table_at)
        return (
            struct.pack("<8sIIII", b"EFI PART", 0x10000, 92, crc, 0)
            + places
            + struct.pack("<III", 128, 128, zlib.crc32(table))
        )

    return packed(zlib.crc32(packed(0))).ljust(SECTOR, b"\0")
