"""Two logical volumes change their names at one instant: one commit of their group's metadata.

lvm(8) has no program for that: lvrename(8) twice would leave a moment without a root, and a merge by lvconvert(8)
can neither be called off nor does it keep what it displaces. So the group's own description is written back with
the two names exchanged (vgcfgbackup(8), vgcfgrestore(8)), while nobody else may change the group. Active devices
keep their tables, and what is mounted stays mounted.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from snapbreaker import commands
from snapbreaker.errors import CheckpointError, ToolError

# What names another volume; whatever else is a text in quotes names none of those that are exchanged here.
_REFERENCE = re.compile(r'^(\t+(?:origin|external_origin|cow_store|merging_store) = ")([^"]*)(".*)$')
_STAYS = re.compile(r"^\t\t\t(?:flags|tags) = ")  # of a volume: they say what is done with whoever has the name


def exchange(group: str, volumes: Mapping[str, str]) -> None:
    """The names of two volumes without parts of their own: the identity (as of lvs(8)) that each name has now.

    Flags and tags stay with the names. On disk when this returns. Raises CheckpointError, OSError: then the names
    are what they were.
    """
    one, other = volumes
    with tempfile.TemporaryDirectory(prefix="snapbreaker-", dir="/run") as scratch, _alone(group):
        # The lock of the group is ours; lvm(8) would wait for it.
        quietly = ("--config", f'global/locking_dir="{scratch}" backup/backup=0 backup/archive=0')
        path = os.path.join(scratch, "metadata")
        try:
            commands.run(["vgcfgbackup", "--quiet", "--quiet", *quietly, "--file", path, group])
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
            lines = text.split("\n")
            for name, identity in volumes.items():
                if f'\t\t\tid = "{identity}"' not in lines[_place(lines, name)]:
                    raise CheckpointError(f"{group}/{name} is another volume by now", f"lvs -o +uuid {group}")
            with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(exchanged(text, one, other))
            # Forced: thin volumes depend on what their pool holds, and that is not changed.
            commands.run(["vgcfgrestore", "--yes", "--force", *quietly, "--file", path, group])
        except ToolError as error:
            raise CheckpointError(f"the names of {group}/{one} and {other} stay: {error.message}") from error


def exchanged(text: str, one: str, other: str) -> str:
    """The description ``text`` of a group, in the form of vgcfgbackup(8). Raises CheckpointError."""
    names = {one: other, other: one}
    lines = [
        f"{found[1]}{names.get(found[2], found[2])}{found[3]}" if (found := _REFERENCE.match(line)) else line
        for line in text.split("\n")
    ]
    sections = {name: _place(lines, name) for name in names}
    stays = {name: [line for line in lines[where] if _STAYS.match(line)] for name, where in sections.items()}
    for name, where in sorted(sections.items(), key=lambda each: each[1].start, reverse=True):
        rest = [line for line in lines[where][1:] if not _STAYS.match(line)]
        lines[where] = [f"\t\t{names[name]} {{", *stays[names[name]], *rest]
    return "\n".join(lines)


def _place(lines: Sequence[str], name: str) -> slice:
    """Of the lines of a volume, without the one that ends it."""
    try:
        start = lines.index(f"\t\t{name} {{", lines.index("\tlogical_volumes {"))
        return slice(start, lines.index("\t\t}", start))
    except ValueError:
        raise CheckpointError(
            f"the metadata of the group does not say what {name} is", "vgcfgbackup -f FILE"
        ) from None


@contextmanager
def _alone(group: str) -> Iterator[None]:
    """Hold the lock of the group as lvm(8) does: flock(2), on the file that has the name afterwards, too."""
    said = commands.run(["lvmconfig", "--typeconfig", "full", "global/locking_dir"]).stdout
    locks = said.partition("=")[2].strip().strip('"')
    os.makedirs(locks, exist_ok=True)
    path = os.path.join(locks, f"V_{group}")
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _same(fd, path):
                yield
                return
        finally:
            os.close(fd)


def _same(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
