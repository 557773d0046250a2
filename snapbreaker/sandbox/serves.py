"""Commands that a sandbox is known to serve, without being asked for one.

They change files and nothing else, and no option of theirs starts a program.
tests/fs/test_overlay_run.py runs each of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

COMMANDS = frozenset({"cp", "rm"})
_PLACES = ("", "/bin", "/usr/bin")


def serves(command: Sequence[str]) -> bool:
    """Whether ``command`` is one of them."""
    if not command:
        return False
    place, name = os.path.split(command[0])
    return name in COMMANDS and place in _PLACES
