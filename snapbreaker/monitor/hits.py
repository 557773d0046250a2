"""How often each rule decided a line, over all runs: ``STORE/rule-hits.json``. Only `rules list` reads it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from snapbreaker.dataclass import dataclass
from snapbreaker.linux.durable import read_json, write_json

NAME = "rule-hits.json"
_MOST = 20_000  # rules; those that have not hit for longest are forgotten


@dataclass(frozen=True, slots=True)
class Hits:
    """``count`` lines, the last of them in the run that ended at ``last`` (seconds since the epoch)."""

    count: int = 0
    last: float = 0.0


NONE = Hits()


def read_hits(store: Path) -> dict[tuple[str, str], Hits]:
    """By the rule's origin and name. Empty when there is no such file, or it is damaged."""
    with suppress(OSError, ValueError, TypeError):
        rows = read_json(str(store / NAME))
        return {(str(origin), str(name)): Hits(int(count), float(last)) for origin, name, count, last in rows}
    return {}


def add_hits(store: Path, found: Mapping[tuple[str, str], int]) -> None:
    """Count those of one more run. The caller holds the lock. Where that fails they are lost, nothing else is."""
    if not found:
        return
    with suppress(OSError, ValueError, TypeError):
        hits, now = read_hits(store), time.time()
        for rule, count in found.items():
            hits[rule] = Hits(hits.get(rule, NONE).count + count, now)
        kept = sorted(hits.items(), key=lambda item: item[1].last)[-_MOST:]
        write_json(str(store / NAME), [[*rule, hit.count, hit.last] for rule, hit in kept])
