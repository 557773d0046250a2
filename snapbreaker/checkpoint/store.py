"""The directory that holds all records."""

from __future__ import annotations

import os
import re
import stat
import time
from contextlib import suppress
from pathlib import Path

from snapbreaker.checkpoint.lock import carrying_file
from snapbreaker.checkpoint.record import Record
from snapbreaker.checkpoint.states import State
from snapbreaker.errors import CheckpointError, UsageError
from snapbreaker.linux.durable import write_file
from snapbreaker.linux.times import times_kept

DEFAULT = "/var/lib/snapbreaker"
ID = re.compile(r"[0-9]{6,}-[0-9]{8}T[0-9]{6}")


class Store:
    """Records by id. Ids begin with a sequence number that only grows, whatever the clock does."""

    def __init__(self, path: str | Path | None = None) -> None:
        given = path or os.environ.get("SNAPBREAKER_STORE") or DEFAULT
        try:
            self.path = Path(os.path.abspath(given))
        except FileNotFoundError:
            raise UsageError(f"--store {given}: the current directory was removed", "give a path from /") from None

    def prepare(self) -> None:
        """Make the store, 0700. Raises CheckpointError where others could write into it, or nobody can."""
        try:
            if not self.path.exists():
                above = next(parent for parent in self.path.parents if parent.exists())
                with times_kept(str(above)):  # it may lie in a scope, which the store is left out of
                    self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = self.path.stat()
            if facts.st_uid != os.geteuid() or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise CheckpointError(
                    f"{self.path} is writable by others",
                    "the store must be yours alone: chmod 0700, or --store DIR",
                )
        except OSError as error:
            raise CheckpointError(
                f"cannot make the store {self.path}: {error.strerror}", "run as root, or give --store DIR"
            ) from error

    def new(self) -> Record:
        """An empty record with the next id. Raises CheckpointError, and leaves nothing then."""
        self.prepare()
        while True:
            sequence = self._next_sequence()
            path = self.path / f"{sequence:06d}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:
                continue
            except OSError as error:
                raise CheckpointError(f"cannot make the record {path}: {error.strerror}") from error
            try:
                write_file(str(self.path / "sequence"), b"%d\n" % sequence)
            except OSError as error:
                with suppress(OSError):
                    path.rmdir()
                raise CheckpointError(f"cannot write to the store {self.path}: {error.strerror}") from error
            return Record(path)

    def records(self) -> list[Record]:
        """All records, oldest first."""
        try:
            with os.scandir(self.path) as found:
                names = [entry.name for entry in found if ID.fullmatch(entry.name) and entry.is_dir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UsageError(f"cannot read the store {self.path}: {error.strerror}") from error
        return sorted((Record(self.path / name) for name in names), key=lambda record: record.sequence)

    def refuse_pending(self) -> None:
        """Raise CheckpointError where a checkpoint waits for the next boot, which would undo what is done now, or
        came by the last one and is not complete.
        """
        self.refuse_outdated()
        for record in self.records():
            if record.state is State.REBOOT_PENDING:
                raise CheckpointError(
                    f"the rollback of checkpoint {record.id} takes effect at boot: what changes now would be lost",
                    f"reboot, or call it off: snapbreaker rollback --call-off {record.id}",
                )

    def refuse_outdated(self) -> None:
        """Raise CheckpointError where a volume was replaced at boot, and what is kept of it has not come over."""
        if os.path.lexists(carrying_file()):
            raise CheckpointError(
                "a volume was replaced at boot, and what is kept of it has not come over, such as records",
                "run `snapbreaker recover`",
            )

    def resolve(self, text: str | None, last: bool = False) -> Record:
        """The record with this id, or sequence number, or unambiguous beginning; the newest with ``last``."""
        records = self.records()
        if last:
            if not records:
                raise UsageError(f"there is no checkpoint in {self.path}")
            return records[-1]
        if text is None:
            raise UsageError("which checkpoint?", "give an ID or --last; `snapbreaker checkpoint list` shows them")
        if not text:
            raise UsageError("the ID is empty", "`snapbreaker checkpoint list` shows them")
        if text.isdecimal():
            found = [record for record in records if record.sequence == int(text)]
        else:
            found = [record for record in records if record.id.startswith(text)]
        if len(found) != 1:
            what = "is ambiguous" if found else "does not exist"
            raise UsageError(f"checkpoint {text} {what}", "`snapbreaker checkpoint list` shows them")
        return found[0]

    def _next_sequence(self) -> int:
        try:
            noted = int((self.path / "sequence").read_bytes())
        except (FileNotFoundError, ValueError):
            noted = 0
        return max([noted, *(record.sequence for record in self.records())]) + 1
