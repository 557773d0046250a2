"""Rules of udev(7) that are ours: until the next boot, or for good.

The file comes before those of device-mapper that look into a device (13-dm-disk.rules, Debian's
60-persistent-storage-dm.rules), which go by what it sets.
"""

from __future__ import annotations

import os
from pathlib import Path

from snapbreaker import commands

NAME = "12-snapbreaker.rules"
FOR_GOOD = Path("/etc/udev/rules.d") / NAME
UNTIL_BOOT = Path("/run/udev/rules.d") / NAME
_RUNS = Path("/run/udev")


def have(rules: str) -> None:
    """Put ``rules`` in force, until the next boot where they are not for good. Raises OSError."""
    if _RUNS.is_dir() and not (FOR_GOOD.exists() or UNTIL_BOOT.exists()):
        UNTIL_BOOT.parent.mkdir(exist_ok=True)
        UNTIL_BOOT.write_text(rules, encoding="ascii")
        reload()


def keep(rules: str) -> list[str]:
    """Put ``rules`` in force for good, where there is udev; the paths that were written. Raises OSError."""
    if not FOR_GOOD.parent.is_dir():
        return []
    FOR_GOOD.write_text(rules, encoding="ascii")
    FOR_GOOD.chmod(0o644)
    reload()
    return [str(FOR_GOOD)]


def reload() -> None:
    """Have udevd read its rules again, if it runs."""
    if os.path.isdir(_RUNS) and commands.installed("udevadm"):
        commands.run(["udevadm", "control", "--reload"], check=False)
