"""How long checkpoints are kept: by count and by age; never a pinned, pending or unfinished one."""

from __future__ import annotations

import time

from snapbreaker.checkpoint.record import Record
from snapbreaker.checkpoint.states import State
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError

DISPENSABLE = frozenset({State.COMMITTED, State.ROLLED_BACK, State.READY})


@dataclass(frozen=True, slots=True)
class Retention:
    """Keep at most ``count`` checkpoints and none older than ``days`` (None: no limit)."""

    count: int | None = 20
    days: float | None = 30.0

    def expired(self, records: list[Record], now: float | None = None) -> list[Record]:
        """The records to remove out of ``records`` (oldest first).

        A checkpoint made by hand has no limit but the count: somebody wanted it.
        """
        now = time.time() if now is None else now
        dispensable = [record for record in records if _dispensable(record)]
        surplus = len(dispensable) - self.count if self.count is not None else 0
        gone = list(dispensable[: max(surplus, 0)])
        for record in dispensable[len(gone) :]:
            old = self.days is not None and now - record.status["time"] > self.days * 86400
            if old and record.state is not State.READY:
                gone.append(record)
        return gone


def _dispensable(record: Record) -> bool:
    try:
        return record.state in DISPENSABLE and not record.pinned and not record.owned() and not record.unfinished()
    except CheckpointError:  # a damaged record is for `recover` and for a person to judge
        return False
