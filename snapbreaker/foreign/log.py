"""Reading what the watcher of a run has seen."""

from __future__ import annotations

import json
import time
from dataclasses import field
from pathlib import Path
from typing import Any

from snapbreaker.dataclass import dataclass
from snapbreaker.foreign.facts import FORMAT, NAME, Origin
from snapbreaker.linux.process import Identity, boot_id, is_alive
from snapbreaker.writers import Inode

_POLL = 0.005  # s


@dataclass(slots=True)
class ForeignWrites:
    """What others wrote during a run.

    ``foreign_only``: by nobody but others; ``shared``: by the run too, or by somebody who was gone before he could
    be told. Both are known by the *regular file* that has the inode now. ``complete``: nothing was missed from the
    start of the command to the end of the watch; else ``reason`` says why not. ``unjudged``: how often a file was
    closed by somebody who was gone before he could be told, and so counts as of the run.
    """

    foreign_only: dict[Inode, Origin] = field(default_factory=dict)
    shared: dict[Inode, Origin] = field(default_factory=dict)
    complete: bool = False
    reason: str = ""
    unjudged: int = 0


def read(record: Path, wait: float = 0.5) -> ForeignWrites:
    """The log in the record directory ``record``. Never raises for what it holds, or that there is none.

    While the watcher is at work (after its worker's death it ends by itself) its last line is waited for, at most
    ``wait`` seconds; with 0 what is there now counts (see ``Watcher.catch_up``).
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            lines = _lines((record / NAME).read_bytes())
        except FileNotFoundError:
            return ForeignWrites(reason="foreign writes were not watched")
        except OSError as error:
            return ForeignWrites(reason=f"{record / NAME} cannot be read: {error.strerror}")
        if not lines or lines[0].get("format") != FORMAT:
            return ForeignWrites(reason=f"{record / NAME} is damaged")
        ended = "end" in lines[-1]
        if ended or time.monotonic() >= deadline or not _is_at_work(lines[0]):
            break
        time.sleep(_POLL)
    return _gathered(lines)


def _lines(data: bytes) -> list[dict[str, Any]]:
    """All whole lines up to the first that is not: the last may have been cut off."""
    found = []
    for line in data.split(b"\n")[:-1]:
        try:
            fact = json.loads(line)
        except ValueError:
            break
        if not isinstance(fact, dict):
            break
        found.append(fact)
    return found


def _is_at_work(first: dict[str, Any]) -> bool:
    watcher = first.get("watcher")
    return watcher is not None and first.get("boot") == boot_id() and is_alive(Identity(*watcher))


def _gathered(lines: list[dict[str, Any]]) -> ForeignWrites:
    found = ForeignWrites()
    generations: dict[Inode, int] = {}
    for fact in lines[1:]:
        found.unjudged = fact.get("unjudged", found.unjudged)
        kind = "foreign" if "foreign" in fact else "run"
        if kind not in fact:
            continue
        device, number, generation = fact.pop(kind)
        inode = Inode(device, number)
        if generations.get(inode, generation) != generation:  # another file has the number now
            found.foreign_only.pop(inode, None)
            found.shared.pop(inode, None)
        generations[inode] = generation
        if kind == "run":
            if inode in found.foreign_only:
                found.shared[inode] = found.foreign_only.pop(inode)
        else:
            where = found.shared if inode in found.shared else found.foreign_only
            where[inode] = Origin(**fact)
    found.reason = _reason(lines)
    found.complete = not found.reason
    return found


def _reason(lines: list[dict[str, Any]]) -> str:
    first = lines[0]
    if reason := first.get("unavailable") or first.get("unwatched"):
        return str(reason)
    if "end" in lines[-1]:
        return str(lines[-1]["end"])
    if _is_at_work(first):
        return next((str(fact["caught up"]) for fact in reversed(lines) if "caught up" in fact), "")
    if first.get("boot") != boot_id():
        return "the machine went down while foreign writes were watched"
    return "the process that watched foreign writes ended before the run did"
