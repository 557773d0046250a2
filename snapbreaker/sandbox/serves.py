"""Commands that a sandbox is known to serve, without being asked for one.

They change files and nothing else: no daemon, no database, no package manager.
tests/fs/test_overlay_serves.py runs each of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

COMMANDS = frozenset({"cp", "git", "patch", "rm", "sed", "tar"})


def serves(command: Sequence[str]) -> bool:
    """Whether ``command`` is one of them."""
    return bool(command) and os.path.basename(command[0]) in COMMANDS
