"""What has to be in order before a checkpoint is taken."""

from __future__ import annotations

from snapbreaker.checkpoint.discard import discard
from snapbreaker.checkpoint.states import NEVER_STARTED
from snapbreaker.checkpoint.store import Store
from snapbreaker.errors import CheckpointError
from snapbreaker.monitor.process_tree import ProcessTree


def preflight(store: Store) -> None:
    """Raise CheckpointError where a run must not begin.

    A run that was cut off comes first: a checkpoint of what it left behind would call a half-done change good.
    What was cut off before its command began changed nothing, and goes.
    """
    for record in store.records():
        if not record.unfinished():
            continue
        if record.state not in NEVER_STARTED:
            raise CheckpointError(
                f"checkpoint {record.id} is unfinished: {record.state}", "run `snapbreaker recover` first"
            )
        ProcessTree.clear(record.run_id)
        discard(record)
