"""When equal metadata proves that a file was not changed."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from snapbreaker.dataclass import dataclass

# CLOCK_REALTIME_COARSE: the clock of inode times before Linux 6.13; its resolution is one tick (clock_getres(2)).
_COARSE = 5
TICK_NS = max(int(time.clock_getres(_COARSE) * 1e9), 1_000_000)
_STEP_NS = 10_000_000
_NEVER = -(1 << 127)  # before any ctime


def _read_boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


# Read once, early: the command may unmount /proc, and the boot does not change under a running process.
_BOOT_ID = _read_boot_id()


@dataclass(frozen=True, slots=True)
class Proof:
    """What was known when the metadata of a tree was recorded.

    An entry is proven unchanged when its metadata equals what was recorded and its ctime is at least two ticks
    older than ``horizon_ns`` (CLOCK_REALTIME): a later change would have got a later ctime. That holds only if the
    filesystem was ``synced`` (what is written through an old mapping changes a file without a new ctime until the
    page was written back) and if the clock was not set since: ``clock_offset_ns`` is CLOCK_REALTIME minus
    CLOCK_BOOTTIME.

    After another boot nothing is proven. The offset has a new origin, so a clock that was set cannot be told; and
    after a power cut new data may be on disk under an inode whose new ctime is not. Then everything is compared.
    """

    horizon_ns: int
    synced: bool
    clock_offset_ns: int
    boot_id: str

    @classmethod
    def take(cls, *, synced: bool = True) -> Proof:
        """Now. Call it before the metadata is read or the snapshot taken.

        ``synced`` promises that the filesystem was synced before any content was recorded: before this call, or
        between it and the snapshot.
        """
        return cls(time.time_ns(), synced, _clock_offset(), _BOOT_ID)

    @classmethod
    def none(cls) -> Proof:
        """Nothing is proven: compare everything."""
        return cls(0, False, 0, "")

    def valid_now(self) -> bool:
        """Whether equal metadata still proves anything."""
        if not (self.synced and self.boot_id and self.boot_id == _BOOT_ID):
            return False
        return abs(_clock_offset() - self.clock_offset_ns) <= _STEP_NS

    def last_ctime(self) -> int:
        """The latest ctime (ns) at which equal metadata is proof; before all times when it never is."""
        return self.horizon_ns - 2 * TICK_NS if self.valid_now() else _NEVER

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Proof:
        return cls(**data)


def _clock_offset() -> int:
    """CLOCK_REALTIME - CLOCK_BOOTTIME, from the tightest of a few readings: we may be preempted between two."""
    readings = []
    for _ in range(5):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        real = time.time_ns()
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        readings.append((after - before, real - before))
    return min(readings)[1]
