"""What a sandboxed command asked of services: held back, and carried out when its changes are applied."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence

from snapbreaker import held
from snapbreaker.checkpoint.record import Record
from snapbreaker.dataclass import dataclass
from snapbreaker.held import Action
from snapbreaker.issue import Issue
from snapbreaker.progress import Progress

_NAME = "held"


def held_back(record: Record) -> list[tuple[str, str]]:
    """Make what holds services back in a directory of the record; what is to be bound in the sandbox. Of another
    user than root no service is at risk. Raises OSError, SnapbreakerError.
    """
    if os.geteuid() != 0:
        return []
    directory = str(record.path / _NAME)
    os.mkdir(directory, 0o700)
    held.prepare(directory)
    return held.bindings(directory)


@dataclass(frozen=True, slots=True)
class HeldBack:
    """What was asked for, in order."""

    directory: str
    actions: Sequence[Action] = ()

    @classmethod
    def of(cls, record: Record) -> HeldBack:
        """To be read before the changes are applied: what carries it out is loaded, too. Raises OSError,
        SnapbreakerError.
        """
        directory = str(record.path / _NAME)
        if not os.path.isdir(directory):
            return cls(directory)
        actions = held.recorded(directory)
        if actions:
            importlib.import_module("sh")
        return cls(directory, actions)

    def carry_out(self, has_units: bool, progress: Progress) -> Issue | None:
        """Ask the machine's own init. ``has_units``: it has to read its files in any case."""
        if not os.path.isdir(self.directory):
            return None
        return held.carry_out(self.actions, self.directory, reload=has_units, progress=progress)
