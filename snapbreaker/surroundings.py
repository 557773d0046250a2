"""What is ready before the first file of a checkpoint is recorded: the command's process tree, and the watcher.

What others write from then on is told apart. If watching began with the command, what they wrote between the
moment when their file was recorded and that one would pass for the run's.
"""

from __future__ import annotations

from collections.abc import Sequence

from snapbreaker.backend import Volume
from snapbreaker.checkpoint.record import Record
from snapbreaker.foreign.watcher import Watch, Watcher
from snapbreaker.guard.guards import Guards
from snapbreaker.linux.process import Identity
from snapbreaker.monitor.process_tree import ProcessTree
from snapbreaker.supervisor import Lifeline


class Surroundings:
    """Of one run. ``tree`` is there once ``prepare`` was called."""

    def __init__(self, lifeline: Lifeline) -> None:
        self._lifeline = lifeline
        self._tree: ProcessTree | None = None
        self.watcher = Watcher()
        self.guards = Guards(lambda pid: self.tree.exclude(pid))

    @property
    def tree(self) -> ProcessTree:
        assert self._tree is not None
        return self._tree

    def prepare(self, record: Record, volumes: Sequence[Volume]) -> None:
        """Raises CheckpointError when the run's cgroup cannot be made."""
        self._tree = ProcessTree.create(record.run_id)
        watch = Watch(
            record.path,
            [volume.mountpoint for volume in volumes],
            [str(record.path.parent), *(volume.vault_base for volume in volumes)],
            [Identity(owner.pid, owner.start) for owner in self._lifeline.owners],
        )
        self.watcher = Watcher.start(watch, self._tree)

    def remove(self) -> None:
        """Nothing was run. Idempotent."""
        self.guards.close()
        self.watcher.stop()
        if self._tree is not None:
            self._tree.remove()
