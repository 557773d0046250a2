"""Following a run from elsewhere: what it has printed so far, what it prints now, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator

from snapbreaker.checkpoint.record import Record
from snapbreaker.checkpoint.states import SETTLED, State
from snapbreaker.checkpoint.store import Store
from snapbreaker.errors import SnapbreakerError, UsageError
from snapbreaker.output_log import OutputReader, Piece
from snapbreaker.report.model import Report
from snapbreaker.report.saved import load_report

_LOOK = 0.1  # s between two looks at the record


def running(store: Store) -> Record:
    """The run that goes on now. Raises UsageError when there is none."""
    for record in reversed(store.records()):
        if _goes_on(record):
            return record
    raise UsageError("no run is going on", "`snapbreaker report --last` shows how the last one ended")


def pieces(record: Record) -> Iterator[Piece]:
    """All output of a run in the order in which it came, until the run has ended."""
    reader = OutputReader(record.path)
    try:
        while True:
            ended = not _goes_on(record)  # before the last look, or what came in between would be left out
            yield from reader.read()
            if ended:
                yield from reader.rest()
                return
            time.sleep(_LOOK)
    finally:
        reader.close()


def verdict(record: Record) -> Report:
    """The report of a run that has ended. Raises SnapbreakerError when it was cut off, or there is none."""
    if record.unfinished():
        raise SnapbreakerError(
            f"the run {record.id} was cut off: nobody works on it any more", "finish it: snapbreaker recover"
        )
    return load_report(record.path)


def _goes_on(record: Record) -> bool:
    """Whether somebody works on it: its own run, or who finishes that."""
    try:
        if record.meta.kind != "run" or record.state is State.HELD:
            return False
        if record.state in SETTLED and record.state is not State.READY and (record.path / "report.json").exists():
            return False
        return record.owned()
    except SnapbreakerError:  # it is being made, or removed
        return record.path.exists() and not (record.path / "meta.json").exists() and record.owned()
