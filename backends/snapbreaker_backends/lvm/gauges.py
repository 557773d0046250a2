"""How full a snapshot, or the pool that it lies in, is: the breaker trips while a rollback still fits."""

from __future__ import annotations

from collections.abc import Iterator

from snapbreaker.dataclass import dataclass
from snapbreaker.linux import device_mapper

FLOOR = 32 << 20  # bytes that stay free; less where less than eight times that was free at the start
_PART = 8
_SECTOR = 512


@dataclass(frozen=True, slots=True)
class Fill:
    """``used`` of ``total``, both of one unit (bytes, or blocks of metadata)."""

    what: str
    used: int
    total: int
    floor: int

    @property
    def free(self) -> int:
        return self.total - self.used


@dataclass(frozen=True, slots=True)
class Gauge:
    """What a device-mapper device says of its fill, compared with what it was when the run began."""

    name: str  # of the device
    told: str  # how a person calls it
    before: tuple[Fill, ...]

    @classmethod
    def of(cls, name: str, told: str) -> Gauge:
        """Raises OSError."""
        return cls(name, told, tuple(fills(*device_mapper.status(name))))

    def __call__(self) -> str:
        """Why the run must stop, empty while it need not.

        A rollback writes at most as much as the run has: what it brings back lies elsewhere than what is there.
        """
        try:
            kind, said = device_mapper.status(self.name)
        except OSError as error:
            return f"{self.told} is gone: {error.strerror}"
        if said.startswith(("Invalid", "Overflow", "Fail", "Error", "Merge failed")):
            return f"{self.told} has overflowed: {said}"
        for then, now in zip(self.before, fills(kind, said), strict=False):
            needed = max(0, now.used - then.used) + min(then.floor, then.free // _PART)
            if now.free < needed:
                percent = 100 * now.used // max(1, now.total)
                return (
                    f"the {now.what} of {self.told} is {percent} % full: what is left is needed for the rollback"
                )
        return ""


def fills(kind: str, said: str) -> Iterator[Fill]:
    """Of a classic snapshot (sectors, snapshot.rst) or a thin pool (blocks, thin-provisioning.rst)."""
    words = said.split()
    if kind == "snapshot" and words and "/" in words[0]:
        used, total = map(int, words[0].split("/"))
        yield Fill("space", used * _SECTOR, total * _SECTOR, FLOOR)
    elif kind == "thin-pool" and len(words) > 2 and "/" in words[1]:
        for what, fill in (("metadata", words[1]), ("data", words[2])):
            used, total = map(int, fill.split("/"))
            yield Fill(what, used, total, total // _PART)
