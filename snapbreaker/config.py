"""Where rules come from unasked: ``/etc/snapbreaker.toml``, then ``snapbreaker.toml`` of the project.

The project is the directory in which the command runs. Its file wins over the system's, and ``--rules`` over both.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from snapbreaker.errors import UsageError
from snapbreaker.monitor.packs import parse_pack, read_rules
from snapbreaker.monitor.rule import Pack

SYSTEM = Path("/etc/snapbreaker.toml")
NAME = "snapbreaker.toml"
_LINKS = 40  # symlinks followed, as Linux does (path_resolution(7))


def configured(project: str) -> list[Pack]:
    """The rules of the system, and of the directory ``project``, in rising precedence.

    Raises UsageError for a bad file, and for one that root is about to trust and others could write.
    """
    found = []
    for name, path in (("system", SYSTEM), ("project", Path(project) / NAME)):
        if os.path.lexists(path):
            if why := distrusted(path):
                raise UsageError(
                    f"{path}: not used by root: {why}", f"make it root's alone, or give it with --rules {path}"
                )
            found.append(parse_pack(read_rules(path), str(path), name))
    return found


def distrusted(path: Path) -> str:
    """Why root must not trust the rules in ``path``: who else could write it, or replace it. Empty: nobody.

    Looked at is each directory and symlink on the way. A sticky directory of root's (/tmp) is fine: what root has
    there only root can replace. For other users nothing is looked at.
    """
    if os.geteuid() != 0:
        return ""
    rest = list(reversed(Path(os.path.abspath(path)).parts[1:]))
    place, links = Path("/"), 0
    while True:
        try:
            facts = os.lstat(place)
        except FileNotFoundError:
            return ""  # not there yet: the directories are fine
        except OSError as error:
            return f"{place}: {error.strerror}"
        if facts.st_uid != 0:
            return f"{place} belongs to uid {facts.st_uid}"
        if stat.S_ISLNK(facts.st_mode):
            links += 1
            if links > _LINKS:
                return f"{place}: too many symlinks"
            target = Path(os.readlink(place))
            rest += reversed([part for part in target.parts if part != "/"])
            place = Path("/") if target.is_absolute() else place.parent
        elif facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not facts.st_mode & stat.S_ISVTX:
            return f"{place} can be written by others (mode {stat.S_IMODE(facts.st_mode):04o})"
        if not rest:
            return ""
        part = rest.pop()
        place = place.parent if part == ".." else place / part
