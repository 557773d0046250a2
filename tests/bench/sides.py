"""Those that put a directory back, or copy it, each driven as its users drive it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from tests.bench.measure import run

LAUNCHER = Path(__file__).resolve().parents[2] / "scripts/snapbreaker"
SNAPPER_CONFIG = """\
SUBVOLUME="{}"
FSTYPE="btrfs"
BACKGROUND_COMPARISON="no"
NUMBER_CLEANUP="no"
TIMELINE_CREATE="no"
"""
SNAPPER = """\
mount --bind "$1/configs" /etc/snapper/configs && mount --bind "$1/default" /etc/default/snapper || exit
shift
exec snapper --no-dbus --config bench "$@"
"""


class Undo(Protocol):
    """One way back: ``before`` is called before the change, ``undo`` after it."""

    name: str
    leaves: frozenset[bytes]  # names that its own store has in the tree

    def before(self, subvolume: Path) -> None: ...

    def undo(self) -> None: ...


class Snapbreaker:
    """A checkpoint made by hand, and rollback to it, comparison of the result included."""

    leaves: frozenset[bytes] = frozenset()

    def __init__(self, store: Path, backend: str) -> None:
        self.name = f"snapbreaker rollback ({backend})"
        self._backend = backend
        self._verb: list[str | Path] = [LAUNCHER, "--quiet", "--store", store]

    def before(self, subvolume: Path) -> None:
        made = run(*self._verb, "checkpoint", "create", "--backend", self._backend, "--scope", subvolume)
        self._id = made.strip()

    def undo(self) -> None:
        run(*self._verb, "rollback", self._id)


class Snapper:
    """snapper without D-Bus, with a configuration that only its own mount namespace sees.

    Not ``snapper --root``: its undochange works on the machine's own ``/`` whatever the root is.
    """

    name = "snapper undochange"
    leaves = frozenset({b".snapshots"})

    def __init__(self, settings: Path) -> None:
        self._settings = settings
        (settings / "configs").mkdir(parents=True)
        (settings / "default").write_text('SNAPPER_CONFIGS="bench"\n')

    def before(self, subvolume: Path) -> None:
        (self._settings / "configs/bench").write_text(SNAPPER_CONFIG.format(subvolume))
        times = subvolume.stat()
        run("btrfs", "subvolume", "create", subvolume / ".snapshots")
        os.utime(subvolume, ns=(times.st_atime_ns, times.st_mtime_ns))
        self._number = self._snapper("create", "--print-number").strip()

    def undo(self) -> None:
        self._snapper("undochange", f"{self._number}..0")

    def _snapper(self, *arguments: str) -> str:
        return run("unshare", "--mount", "sh", "-c", SNAPPER, "sh", self._settings, *arguments)


class Rsync:
    """rsync back from a read-only btrfs snapshot."""

    name = "rsync -aHAX --delete"
    leaves: frozenset[bytes] = frozenset()

    def before(self, subvolume: Path) -> None:
        self._live, self._snapshot = subvolume, subvolume.with_name(subvolume.name + "-before")
        run("btrfs", "subvolume", "snapshot", "-r", self._live, self._snapshot)

    def undo(self) -> None:
        run("rsync", "-aHAX", "--delete", f"{self._snapshot}/", f"{self._live}/")
