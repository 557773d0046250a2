"""How a rollback went."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import field

from snapbreaker.dataclass import dataclass
from snapbreaker.files.entry import Change
from snapbreaker.files.verify import Difference
from snapbreaker.report.model import Changes, absolute
from snapbreaker.system.rollback import SystemOutcome


@dataclass(slots=True)
class VolumeOutcome:
    """How it went on one volume.

    ``failures`` are (path, why), ``ended`` is whether an error ended the work on it, ``displaced`` the directories
    that keep what was taken away, ``deleted`` what the run had added and could not be kept, since the filesystem
    was full.
    """

    root: str
    changes: Changes = field(default_factory=Changes)
    failures: list[tuple[bytes, str]] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    displaced: list[str] = field(default_factory=list)
    deleted: list[bytes] = field(default_factory=list)
    touched: set[bytes] = field(default_factory=set)  # every path that was put back
    files: set[str] = field(default_factory=set)  # those that are no directories, absolute
    foreign: list[tuple[str, str]] = field(default_factory=list)  # what others had changed, and what became of it
    untouched: bool = False  # what the command did never came to the volume: there was nothing to compare
    compared: bool = False
    ended: bool = False
    verify_seconds: float = 0.0

    @property
    def refused(self) -> bool:
        """Whether something would not go back."""
        return self.ended or bool(self.failures)

    def touch(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self.touched.add(change.path)
            if not any(entry is not None and entry.is_dir for entry in (change.old, change.new)):
                self.files.add(absolute(self.root, change.path))


@dataclass(slots=True)
class Outcome:
    """How a rollback went: verified means that everything was compared again and nothing differs."""

    volumes: list[VolumeOutcome] = field(default_factory=list)
    unmounted: list[str] = field(default_factory=list)
    missing_mounts: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    system: SystemOutcome = field(default_factory=SystemOutcome)
    restore_seconds: float = 0.0
    started: float = field(default_factory=time.time)

    @property
    def verified(self) -> bool:
        spoiled = any(volume.failures or volume.differences for volume in self.volumes)
        compared = all(volume.compared for volume in self.volumes)
        spoiled = spoiled or bool(self.errors or self.missing_mounts)
        return compared and not (spoiled or self.system.errors or self.system.differences)
