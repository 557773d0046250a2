"""How far the carrying out is, on disk: ``recover`` goes on from there."""

from __future__ import annotations

import os

from snapbreaker.dataclass import dataclass
from snapbreaker.linux.durable import read_json, write_json
from snapbreaker.linux.process import boot_id

_FILE = "carried.json"


@dataclass(slots=True)
class Noted:
    """``begun`` actions were begun, ``done`` of them have ended well. ``bad``: units that had failed before.

    Each step is noted before and after it, durably. One that was begun and has not ended is done again where that
    comes to the same; else (a signal) it counts as done.
    """

    path: str
    boot: str
    bad: list[str]
    begun: int = 0
    done: int = 0
    over: bool = False

    @classmethod
    def of(cls, directory: str) -> Noted | None:
        """What an earlier process has noted; None before the first action. Raises OSError, ValueError."""
        path = os.path.join(directory, _FILE)
        try:
            return cls(path, **read_json(path))
        except FileNotFoundError:
            return None

    @classmethod
    def new(cls, directory: str, bad: list[str]) -> Noted:
        made = cls(os.path.join(directory, _FILE), boot_id(), bad)
        made._write()
        return made

    @property
    def of_this_boot(self) -> bool:
        return self.boot == boot_id()

    def begin(self, number: int) -> None:
        self.begun = number + 1
        self._write()

    def finish(self, number: int) -> None:
        self.done = number + 1
        self._write()

    def end(self) -> None:
        self.over = True
        self._write()

    def _write(self) -> None:
        noted = {"boot": self.boot, "bad": self.bad, "begun": self.begun, "done": self.done, "over": self.over}
        write_json(self.path, noted)
