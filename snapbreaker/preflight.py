"""What has to be in order before a checkpoint is taken."""

from __future__ import annotations

from contextlib import suppress

from snapbreaker.checkpoint.discard import discard
from snapbreaker.checkpoint.record import Record
from snapbreaker.checkpoint.states import NEVER_STARTED, SETTLED
from snapbreaker.checkpoint.store import Store
from snapbreaker.commit import let_go
from snapbreaker.errors import CheckpointError, SnapbreakerError
from snapbreaker.monitor.process_tree import ProcessTree
from snapbreaker.system import holds


def preflight(store: Store) -> None:
    """Raise CheckpointError where a run must not begin.

    A run that was cut off comes first: a checkpoint of what it left behind would call a half-done change good.
    What was cut off before its command began changed nothing, and goes.
    """
    store.refuse_outdated()
    for record in store.records():
        if not record.unfinished():
            _put_timers_back(record)
            let_go(record)
            continue
        if record.state not in NEVER_STARTED:
            raise CheckpointError(
                f"checkpoint {record.id} is unfinished: {record.state}", "run `snapbreaker recover` first"
            )
        ProcessTree.clear(record.run_id)
        discard(record)


def _put_timers_back(record: Record) -> None:
    """Of a run whose snapbreaker died just before, or could not speak to systemd."""
    with suppress(OSError, SnapbreakerError):  # it stays noted, for the next one and for `recover`
        if holds.held(record.path) and record.state in SETTLED:
            holds.put_back(record.path)
