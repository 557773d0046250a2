"""What boots a machine and lies in no file: code in the first sector of a disk, and the boot loader behind it.

On a disk with an MBR that lies in the gap before the first partition, on one with a GPT in a partition of its own
("BIOS boot"). https://www.gnu.org/software/grub/manual/grub/html_node/BIOS-installation.html
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import struct
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress

from snapbreaker.dataclass import dataclass

BLOCK_DEVICES = "/sys/block"
_NO_DISKS = re.compile(r"(loop|ram|zram|dm-|md|sr|fd|nbd)\d")
_SECTOR = 512
_CODE = 440  # bytes of the MBR before the disk's signature; partitions follow
_MOST = 4 << 20  # bytes: more is no boot loader
_LARGEST = 4096  # bytes of an entry in a table of partitions
_FURTHEST = 1 << 50  # sectors: beyond them is no disk
_GPT_HEADER = struct.Struct("<8s4x4x4x4x8x8x8x8x16sQII")  # UEFI specification, 5.3.2
_GPT_ENTRY = struct.Struct("<16s16sQQ")
_BIOS_BOOT = bytes.fromhex("4861682149646f6e744e656564454649")  # 21686148-6449-6E6F-744E-656564454649, as stored


@dataclass(frozen=True, slots=True)
class _Area:
    name: str
    device: str
    start: int  # bytes
    size: int


def read() -> tuple[dict[str, str], dict[str, str]]:
    """By name the digest of each such area, and by digest its content, for ``put_back``.

    Disks are named by their signatures, which stay when devices are numbered otherwise. A disk that cannot be
    read, or has no table of partitions, has none.
    """
    digests: dict[str, str] = {}
    contents: dict[str, str] = {}
    for area in _areas():
        with suppress(OSError):
            data = _read(area.device, area.start, area.size)
            digest = hashlib.sha256(data).hexdigest()[:32]
            digests[area.name] = digest
            contents[digest] = base64.b64encode(zlib.compress(data)).decode("ascii")
    return digests, contents


def put_back(wanted: dict[str, str], contents: dict[str, str], only: Collection[str] | None = None) -> list[str]:
    """Write what differs from ``wanted``; the names of what was. Of other names than ``only`` all stay. Raises
    OSError. Areas that are no longer there are left to the comparison.
    """
    written = []
    now = read()[0]
    for area in _areas():
        digest = wanted.get(area.name, "")
        if now.get(area.name) in (None, digest) or digest not in contents:
            continue
        if only is None or area.name in only:
            data = zlib.decompress(base64.b64decode(contents[digest]))
            if len(data) == area.size:
                _write(area.device, area.start, data)
                written.append(area.name)
    return written


def _areas() -> list[_Area]:
    found: list[_Area] = []
    for disk in sorted(os.listdir(BLOCK_DEVICES)) if os.path.isdir(BLOCK_DEVICES) else ():
        if not _NO_DISKS.match(disk):
            with suppress(OSError):
                found += _areas_of(f"/dev/{disk}", _first_partition(f"{BLOCK_DEVICES}/{disk}"))
    names = [area.name for area in found]
    return [area for area in found if names.count(area.name) == 1]  # a clone of a disk has the same signature


def _areas_of(device: str, first: int) -> Iterator[_Area]:
    """``first`` is where the first partition begins, in bytes; 0 when there is none."""
    head = _read(device, 0, 2 * _SECTOR)
    if head[510:512] != b"\x55\xaa" or not first:
        return
    if head[_SECTOR:].startswith(b"EFI PART"):
        _, guid, table, count, size = _GPT_HEADER.unpack_from(head, _SECTOR)
        yield _Area(f"code of disk {guid.hex()}", device, 0, _CODE)
        if not 128 <= size <= _LARGEST or table >= _FURTHEST:
            return  # whoever writes to the disk, maybe a guest, wrote nonsense
        entries = _read(device, table * _SECTOR, min(count, 128) * size)
        for at in range(0, len(entries) - size + 1, size):
            kind, partition, start, last = _GPT_ENTRY.unpack_from(entries, at)
            whole = start <= last < _FURTHEST and (last + 1 - start) * _SECTOR <= _MOST
            if kind == _BIOS_BOOT and whole:
                name = f"loader in partition {partition.hex()}"
                yield _Area(name, device, start * _SECTOR, (last + 1 - start) * _SECTOR)
        return
    signature = head[_CODE : _CODE + 4][::-1].hex()
    if signature != "00000000":
        yield _Area(f"code of disk {signature}", device, 0, _CODE)
        if _SECTOR < first <= _MOST:
            yield _Area(f"loader of disk {signature}", device, _SECTOR, first - _SECTOR)


def _first_partition(disk: str) -> int:
    starts = []
    for name in os.listdir(disk):
        with suppress(OSError), open(f"{disk}/{name}/start", encoding="ascii") as file:
            starts.append(int(file.read()) * _SECTOR)
    return min(starts, default=0)


def _read(device: str, start: int, size: int) -> bytes:
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, size, start)
    finally:
        os.close(fd)


def _write(device: str, start: int, data: bytes) -> None:
    fd = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
    try:
        done = 0
        while done < len(data):
            done += os.pwrite(fd, data[done:], start + done)
        os.fsync(fd)
    finally:
        os.close(fd)
