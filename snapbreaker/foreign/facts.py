"""What was seen: which inodes the run wrote, and which ones others did. In memory, and on disk what matters."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

from snapbreaker.dataclass import dataclass
from snapbreaker.writers import Inode

FORMAT = 1
NAME = "foreign.log"  # in the record


@dataclass(frozen=True, slots=True)
class Origin:
    """Who wrote a file that is not of the run.

    ``path`` is where it was then, as the watcher saw it (str with surrogateescape): a file that is written under
    another name and then renamed has the former. ``how``: ``closed`` after writing, or still ``open`` for it at
    the end, which does not say that anything was written. ``unit`` as in ``Judgement``.
    """

    path: str
    pid: int
    comm: str
    unit: str
    how: str = "closed"


@dataclass(slots=True)
class _Foreign:
    generation: int
    path: str
    how: str
    shared: bool


class Facts:
    """Facts of one run, in order. Those that a reader needs are appended to the descriptor ``log``.

    An inode number is used again, by ext4 at once; the generation (FS_IOC_GETVERSION) tells the files apart. None
    where it is not known: then it is taken for the file that was seen last.
    """

    def __init__(self, log: int) -> None:
        self._log = log
        self._seen: dict[int, int | _Foreign] = {}  # the generation alone where only the run wrote: there are many
        self.failure = ""

    def run(self, inode: Inode, generation: int | None) -> None:
        """The run wrote it, or may have."""
        key = _key(inode)
        seen = self._seen.get(key)
        if not isinstance(seen, _Foreign):
            self._seen[key] = (seen or 0) if generation is None else generation
        elif generation is None or generation == seen.generation:
            if not seen.shared:
                seen.shared = True
                self._append({"run": [*inode, seen.generation]})
        else:
            self._seen[key] = generation
            self._append({"run": [*inode, generation]})

    def foreign(self, inode: Inode, generation: int | None, origin: Origin) -> None:
        """Somebody else wrote it."""
        key = _key(inode)
        seen = self._seen.get(key)
        if isinstance(seen, _Foreign) and generation in (None, seen.generation):
            if (seen.path, seen.how) == (origin.path, origin.how):
                return
            seen.path, seen.how = origin.path, origin.how
            self._append_foreign(inode, seen.generation, origin)
            return
        shared = isinstance(seen, int) and generation in (None, seen)
        known = seen if generation is None and isinstance(seen, int) else generation or 0
        self._seen[key] = _Foreign(known, origin.path, origin.how, shared)
        self._append_foreign(inode, known, origin)
        if shared:
            self._append({"run": [*inode, known]})

    def begin(self, **facts: Any) -> None:
        self._append({"format": FORMAT, **facts})

    def caught_up(self, reason: str, unjudged: int) -> None:
        """All that was written up to now is noted; as ``end``, but more may come."""
        self._append({"caught up": self.failure or reason, "unjudged": unjudged})

    def end(self, reason: str, unjudged: int = 0) -> None:
        """The last line. ``reason`` says why it is not all, empty when it is."""
        self._append({"end": self.failure or reason, "unjudged": unjudged})

    def _append_foreign(self, inode: Inode, generation: int, origin: Origin) -> None:
        self._append({"foreign": [*inode, generation], **asdict(origin)})

    def _append(self, fact: dict[str, Any]) -> None:
        """One line in one write, not synced: it survives every process, but not the machine."""
        line = json.dumps(fact).encode("ascii") + b"\n"
        try:
            if os.write(self._log, line) < len(line):
                self.failure = "the log could not be written whole"
        except OSError as error:
            self.failure = f"the log could not be written: {error.strerror}"


def _key(inode: Inode) -> int:
    return inode.device << 64 | inode.number
