"""Commands that a sandbox is known to serve, without being asked for one.

They change files and nothing else, and start nothing that could: no daemon, no hook, no script.
tests/fs/test_overlay_run.py runs each of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

COMMANDS = frozenset({"cp", "install", "patch", "rm", "tar"})
_PLACES = ("", "/bin", "/sbin", "/usr/bin", "/usr/sbin")
# With these, or the beginnings of them, tar(1) starts a program. One-letter options may be in a bundle: ``-xFf``.
_PROGRAM_OPTIONS = ("--checkpoint-a", "--inf", "--new-", "--rmt", "--rsh", "--to-c", "--us")
_PROGRAM_LETTERS = frozenset("FI")


def serves(command: Sequence[str]) -> bool:
    """Whether ``command`` is one of them."""
    if not command:
        return False
    place, name = os.path.split(command[0])
    if name not in COMMANDS or place not in _PLACES:
        return False
    return name != "tar" or not any(map(_may_start_a_program, command[1:]))


def _may_start_a_program(word: str) -> bool:
    """Of tar(1), whose first word may be letters without a hyphen. A file name that looks like it counts, too."""
    if word.startswith("--"):
        return word.startswith(_PROGRAM_OPTIONS)
    return "/" not in word and not _PROGRAM_LETTERS.isdisjoint(word)
