"""Which processes work on a checkpoint, told apart from later ones with the same pid and from other boots."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from snapbreaker.dataclass import dataclass
from snapbreaker.linux.process import Identity, boot_id, identify, is_alive


@dataclass(frozen=True, slots=True)
class Owner:
    """One process of one boot. ``start`` is in clock ticks since boot."""

    pid: int
    start: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Owner:
        identity = identify(pid)
        return cls(pid, identity.start if identity else 0, boot_id())

    def alive(self) -> bool:
        return self.boot == boot_id() and is_alive(Identity(self.pid, self.start))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
