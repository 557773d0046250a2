"""Those that put a directory back, each driven as its users drive it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Protocol

from tests.bench import tree
from tests.bench.back import seconds_until_back
from tests.bench.held import LAUNCHER, HeldRun
from tests.bench.measure import run, settle

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
    """One way back: ``change`` runs the program that changes the directory, with what has to come before it;
    ``undo`` puts all back, and returns the seconds until that was done where it does more than that; ``after``
    forgets.
    """

    name: str
    leaves: frozenset[bytes]  # names that its own store has in the tree

    def change(self, directory: Path, files: int, paths: int) -> None: ...

    def undo(self) -> float | None: ...

    def after(self) -> None: ...


def changer(directory: Path, files: int, paths: int) -> list[str]:
    return [sys.executable, "-m", "tests.bench.change", str(directory), str(files), str(paths)]


class Halted:
    """A run whose command made the change and then fails; from its exit until snapbreaker's, with the proof."""

    leaves: frozenset[bytes] = frozenset()

    def __init__(self, store: Path, backend: str) -> None:
        self.name = f"snapbreaker run, halted ({backend})"
        self._store, self._backend = store, backend

    def change(self, directory: Path, files: int, paths: int) -> None:
        self._run = HeldRun(
            self._store,
            directory,
            *changer(directory, files, paths),
            status=1,
            options=("--backend", self._backend),
        )
        self._run.until_done()

    def undo(self) -> float:
        self._run.end(expected=1)
        return self._run.back

    def after(self) -> None:
        run(LAUNCHER, "--quiet", "--store", self._store, "checkpoint", "delete", self._run.id)


class Snapbreaker:
    """A checkpoint made by hand, and rollback to it, comparison of the result included."""

    leaves: frozenset[bytes] = frozenset()

    def __init__(self, store: Path, backend: str) -> None:
        self.name = f"snapbreaker rollback ({backend})"
        self._backend = backend
        self._verb: list[str | Path] = [LAUNCHER, "--quiet", "--store", store]

    def change(self, directory: Path, files: int, paths: int) -> None:
        made = run(*self._verb, "checkpoint", "create", "--backend", self._backend, "--scope", directory)
        self._id = made.strip()
        run(*changer(directory, files, paths))

    def undo(self) -> float:
        started = time.time()
        events = run(*self._verb, "rollback", "--json", self._id)
        return seconds_until_back(events.encode().splitlines(), started)

    def after(self) -> None:
        run(*self._verb, "checkpoint", "delete", self._id)


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

    def change(self, directory: Path, files: int, paths: int) -> None:
        (self._settings / "configs/bench").write_text(SNAPPER_CONFIG.format(directory))
        times = directory.stat()
        run("btrfs", "subvolume", "create", directory / ".snapshots")
        os.utime(directory, ns=(times.st_atime_ns, times.st_mtime_ns))
        self._number = self._snapper("create", "--print-number").strip()
        run(*changer(directory, files, paths))

    def undo(self) -> None:
        self._snapper("undochange", f"{self._number}..0")

    def after(self) -> None:
        self._snapper("delete", self._number)

    def _snapper(self, *arguments: str) -> str:
        return run("unshare", "--mount", "sh", "-c", SNAPPER, "sh", self._settings, *arguments)


class Rsync:
    """rsync back from a full copy: on btrfs a read-only snapshot, elsewhere one that rsync made, or made anew."""

    name = "rsync -aHAX --delete"
    leaves: frozenset[bytes] = frozenset()

    def __init__(self, snapshots: bool) -> None:
        self._snapshots = snapshots

    def change(self, directory: Path, files: int, paths: int) -> None:
        self._live, self._copy = directory, directory.with_name(directory.name + "-before")
        if self._snapshots:
            run("btrfs", "subvolume", "snapshot", "-r", directory, self._copy)
        else:
            self._sync(self._live, self._copy)
            settle(directory)
        run(*changer(directory, files, paths))

    def undo(self) -> None:
        self._sync(self._copy, self._live)

    def after(self) -> None:
        if self._snapshots:
            run("btrfs", "subvolume", "delete", self._copy)

    def _sync(self, source: Path, target: Path) -> None:
        run("rsync", "-aHAX", "--delete", f"{source}/", f"{target}/")


class Bare:
    """The system calls that the way back takes, and no more (``tests.bench.bare``)."""

    name = "the bare system calls"
    leaves = frozenset({b"slots"})

    def __init__(self, snapshots: bool) -> None:
        self._snapshots = snapshots

    def change(self, directory: Path, files: int, paths: int) -> None:
        self._arguments = [str(directory), str(directory.with_name("kept")), str(files), str(paths)]
        kept = Path(self._arguments[1])
        if self._snapshots:
            run("btrfs", "subvolume", "snapshot", "-r", directory, kept)
        else:
            tree.keep(directory, kept, files, paths)
        run(*changer(directory, files, paths))

    def undo(self) -> None:
        run(sys.executable, "-m", "tests.bench.bare", *self._arguments)

    def after(self) -> None:
        kept = Path(self._arguments[1])
        if self._snapshots:
            run("btrfs", "subvolume", "delete", kept)
        else:
            shutil.rmtree(kept)
        shutil.rmtree(f"{self._arguments[0]}/slots")
