"""What a rollback goes back to."""

from __future__ import annotations

from snapbreaker.checkpoint.states import State
from snapbreaker.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Goal:
    """What to go back to. Kept in the state file, so that `recover` continues in the same direction.

    ``undo``: only what the run changed, out of the undo set; else the checkpoint itself.
    ``halted``: the run was never committed, so of packages and units all goes back. ``paths``: absolute; empty
    means everything.
    """

    undo: bool = False
    paths: tuple[str, ...] = ()
    rest: State = State.ROLLED_BACK  # the state in which the checkpoint rests afterwards
    halted: bool = False

    def as_dict(self) -> dict[str, object]:
        return {"undo": self.undo, "paths": list(self.paths), "rest": str(self.rest), "halted": self.halted}

    @classmethod
    def from_dict(cls, data: dict[str, object]) -> Goal:
        paths = data.get("paths")
        return cls(
            bool(data.get("undo")),
            tuple(paths) if isinstance(paths, list) else (),
            State(str(data.get("rest", State.ROLLED_BACK))),
            bool(data.get("halted")),
        )
