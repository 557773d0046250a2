"""Users and groups: passwd(5), group(5). Only the local files: a directory service is not this machine's."""

from __future__ import annotations

import os

USERS, GROUPS = "/etc/passwd", "/etc/group"


def users() -> dict[str, str]:
    """Each user with ``uid:gid:comment:home:shell``."""
    return {name: ":".join(rest[1:]) for name, *rest in _lines(USERS)}


def groups() -> dict[str, str]:
    """Each group with ``gid:members``."""
    return {name: ":".join(rest[1:]) for name, *rest in _lines(GROUPS)}


def _lines(path: str) -> list[list[str]]:
    """Split at colons; [] where there is no such file."""
    try:
        with open(path, "rb") as file:
            text = os.fsdecode(file.read())
    except FileNotFoundError:
        return []
    return [line.split(":") for line in text.split("\n") if line.count(":") >= 2 and not line.startswith("#")]
