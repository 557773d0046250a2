"""Device-mapper devices: what they are, from sysfs, and how full they are, by ioctl(2) (<linux/dm-ioctl.h>).

System calls only: asked while a command runs, and when lvm(8) may be gone.
"""

from __future__ import annotations

import fcntl
import os
import struct

from snapbreaker.dataclass import dataclass

CONTROL = "/dev/mapper/control"
# struct dm_ioctl: version[3], data_size, data_start, target_count, open_count, flags, event_nr, padding, dev,
# name[128], uuid[129], data[7]
_HEADER = struct.Struct("=3IIIIiIIIQ128s129s7x")
_SPEC = struct.Struct("=QQiI16s")  # struct dm_target_spec: sector_start, length, status, next, target_type
_SIZE = 64 << 10
_DM_TABLE_STATUS = 3 << 30 | _HEADER.size << 16 | 0xFD << 8 | 12  # _IOWR(0xfd, 12, struct dm_ioctl)
_NOFLUSH = 1 << 11  # DM_NOFLUSH_FLAG: do not commit a thin pool's metadata first
_BUFFER_FULL = 1 << 8  # DM_BUFFER_FULL_FLAG


@dataclass(frozen=True, slots=True)
class Device:
    """``name`` and ``uuid`` as the kernel has them; ``number`` is ``major:minor``."""

    number: str
    name: str
    uuid: str

    @property
    def path(self) -> str:
        return f"/dev/mapper/{self.name}"


def device(number: str) -> Device | None:
    """The device ``major:minor``, None when that is something else (Documentation/ABI/testing/sysfs-block-dm)."""
    place = f"/sys/dev/block/{number}/dm"
    try:
        return Device(number, _read(f"{place}/name"), _read(f"{place}/uuid"))
    except OSError:
        return None


def find(uuid: str) -> Device | None:
    """The active device with this uuid."""
    return _first("uuid", uuid)


def named(name: str) -> Device | None:
    """The active device called so."""
    return _first("name", name)


def _first(fact: str, wanted: str) -> Device | None:
    try:
        names = os.listdir("/sys/block")
    except OSError:
        return None
    for name in names:
        if name.startswith("dm-"):
            try:
                if _read(f"/sys/block/{name}/dm/{fact}") == wanted:
                    return device(_read(f"/sys/block/{name}/dev"))
            except OSError:
                continue
    return None


def below(one: Device) -> list[Device]:
    """The devices that its table lies on and that are device-mapper's, too."""
    try:
        names = os.listdir(f"/sys/dev/block/{one.number}/slaves")
        found = [device(_read(f"/sys/block/{name}/dev")) for name in names if name.startswith("dm-")]
    except OSError:
        return []
    return [each for each in found if each is not None]


def size(one: Device) -> int:
    """Bytes (Documentation/ABI/stable/sysfs-block). Raises OSError."""
    return int(_read(f"/sys/dev/block/{one.number}/size")) * 512


def status(name: str) -> tuple[str, str]:
    """Type of the first target of the device ``name`` and what it says (Documentation/admin-guide/device-mapper).

    Raises OSError: ENXIO where there is no such device.
    """
    header = _HEADER.pack(4, 0, 0, _SIZE, _HEADER.size, 0, 0, _NOFLUSH, 0, 0, 0, os.fsencode(name), b"")
    data = bytearray(header + bytes(_SIZE - len(header)))
    fd = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _DM_TABLE_STATUS, data)
    finally:
        os.close(fd)
    start, count, flags = struct.unpack_from("=I", data, 16)[0], *struct.unpack_from("=IiI", data, 20)[::2]
    if flags & _BUFFER_FULL or not count:
        return "", ""
    kind = _SPEC.unpack_from(data, start)[4].rstrip(b"\0").decode()
    said = bytes(data[start + _SPEC.size :]).partition(b"\0")[0]
    return kind, said.decode("utf-8", "replace")


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read().strip()
