"""Files that the kernel swaps to: proc_swaps(5). They can be neither replaced nor snapshotted meanwhile."""

from __future__ import annotations

import os
import re
import stat


def active_swap_files() -> list[tuple[str, int]]:
    """Path and st_dev of each active swap file; partitions are left out. Empty without /proc/swaps."""
    try:
        with open("/proc/swaps", "rb") as file:
            lines = file.read().splitlines()[1:]
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        # The kernel writes blank, tab, newline and backslash as three octal digits (mm/swapfile.c, swap_show).
        path = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), line.split()[0])
        try:
            facts = os.stat(path)
        except OSError:
            continue
        if stat.S_ISREG(facts.st_mode):
            found.append((os.fsdecode(path), facts.st_dev))
    return found
