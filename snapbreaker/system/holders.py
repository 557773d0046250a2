"""Which processes work on files that a restore is about to replace."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress

from snapbreaker.dataclass import dataclass
from snapbreaker.files.entry import Change
from snapbreaker.linux.process import pids, process
from snapbreaker.system.owners import unit_of
from snapbreaker.writers import writable_files

# Directories that many share: who works there has no more to do with what changed in them than anybody else.
_SHARED = re.compile(rb"/|/[^/]+|/(home|media|mnt|usr|var)/[^/]+|/usr/local/[^/]+")


@dataclass(frozen=True, slots=True)
class Holder:
    """``path`` (absolute) is one of the changed files that it has open for writing, or that lie where it works."""

    pid: int
    comm: str
    unit: str
    path: str

    def __str__(self) -> str:
        return f"{self.comm} (pid {self.pid})"


def holders(root: str, changes: Collection[Change]) -> list[Holder]:
    """Processes that have a changed file open for writing, or whose working directory has one in or below it.

    A database server works in its data directory, and opens most files only now and then; places that many share,
    such as /root and /var/lib, tell nothing. By inode, so also those in other mount namespaces are found.
    """
    top = os.fsencode(root.rstrip("/"))
    files = [change for change in changes if change.new is not None and not change.new.is_dir]
    inodes = {(one.new.dev, one.new.ino): top + b"/" + one.path for one in files if one.new is not None}
    below = _first_below(top + b"/" + change.path for change in changes if not _is_directory(change))
    found = []
    for pid in sorted(pids()):
        path = _open_file(pid, inodes) or _worked_on(pid, below)
        owner = process(pid) if path and pid != os.getpid() else None
        if path and owner is not None and not owner.dead:
            found.append(Holder(pid, owner.comm, unit_of(pid), os.fsdecode(path)))
    return found


def _is_directory(change: Change) -> bool:
    return any(entry is not None and entry.is_dir for entry in (change.old, change.new))


def _first_below(paths: Iterator[bytes]) -> dict[bytes, bytes]:
    """Each directory above any of ``paths`` that is not shared, with the first of them."""
    found: dict[bytes, bytes] = {}
    for path in paths:
        above = path.rpartition(b"/")[0]
        while above and above not in found:
            if not _SHARED.fullmatch(above):
                found[above] = path
            above = above.rpartition(b"/")[0]
    return found


def _open_file(pid: int, inodes: dict[tuple[int, int], bytes]) -> bytes | None:
    for file in writable_files(pid):
        if found := inodes.get((file.inode.device, file.inode.number)):
            return found
    return None


def _worked_on(pid: int, below: dict[bytes, bytes]) -> bytes | None:
    with suppress(OSError):
        return below.get(os.readlink(b"/proc/%d/cwd" % pid))
    return None
