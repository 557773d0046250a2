"""`bench checkpoint`: from the start of a run until its command starts, beside copies of the same tree."""

from __future__ import annotations

import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Protocol

from tests.bench import filesystem, tree
from tests.bench.filesystem import allocated, in_use
from tests.bench.held import LAUNCHER, HeldRun
from tests.bench.measure import Samples, cache_option, compared, heading, run, settle, timed

BACKEND = {"ext4": "filecopy", "xfs": "filecopy", "btrfs": "btrfs"}
COPIES = {
    "ext4": ("rsync -aHAX", "cp -al"),
    "xfs": ("rsync -aHAX", "cp -a"),
    "btrfs": ("rsync -aHAX", "cp -a"),
}
GOALS = {"ext4": {"rsync -aHAX": 0.12}}
NOTE = """\
snapbreaker's time is that of all that happens before the command starts, its own start included. Space is in
percent of the tree's bytes: on its filesystem, and in the store. `cp -al` keeps nothing that is changed in place.
"""


class Record(Protocol):
    """One way to record a tree, and to forget that again."""

    name: str

    def record(self) -> None: ...

    def forget(self) -> None: ...


def arguments(parser: ArgumentParser) -> None:
    cache_option(parser)
    parser.add_argument("--files", type=int, default=160_000)
    parser.add_argument("--on", action="append", choices=sorted(BACKEND), help="filesystem; default: all of them")


def bench(options: Namespace, scratch: Path) -> str:
    size = sum(map(tree.size_of, range(options.files)))
    facts = (
        f"{options.files:,} files of {size / 1e9:.2f} GB",
        f"{options.cache} cache, loop images in {options.images}, syncfs included, {options.rounds} rounds",
    )
    parts = [heading("Checkpoint", *facts)]
    for fstype in options.on or BACKEND:
        loop = filesystem.make(fstype, scratch)
        try:
            sides = _sides(loop.path, fstype, scratch / "store")
            table = _measured(loop.path, sides, scratch / "store", size, options)
        finally:
            loop.close()
        parts.append(f"### {fstype}\n\n{compared(table, ['space', 'in the store'], GOALS.get(fstype, {}))}\n")
    return "\n".join([*parts, NOTE])


def _measured(
    mountpoint: Path, sides: list[Record], store: Path, size: int, options: Namespace
) -> dict[str, Samples]:
    scope = mountpoint / "scope"
    tree.make(scope, options.files)
    samples = {side.name: Samples() for side in sides}
    for _ in range(options.rounds):
        for side in sides:
            settle(mountpoint)
            before, stored = in_use(mountpoint), allocated(store)
            samples[side.name].add(timed(side.record, scope, options.cache))
            took = in_use(mountpoint) - before, allocated(store) - stored
            samples[side.name].notes = [f"{bytes_ / 1e6:,.1f} MB, {bytes_ / size:.2%}" for bytes_ in took]
            side.forget()
    return samples


def _sides(mountpoint: Path, fstype: str, store: Path) -> list[Record]:
    scope = mountpoint / "scope"
    if fstype == "btrfs":
        run("btrfs", "subvolume", "create", scope)
    copies = [_Copy(name, scope, mountpoint / "copy") for name in COPIES[fstype]]
    return [_Run(store, scope, BACKEND[fstype]), *copies]


class _Run:
    """Until the command starts; it then waits, the guard with it, until all is measured."""

    def __init__(self, store: Path, scope: Path, backend: str) -> None:
        self.name = f"snapbreaker run ({backend})"
        self._store, self._scope, self._backend = store, scope, backend

    def record(self) -> None:
        self._run = HeldRun(self._store, self._scope, "true", options=("--backend", self._backend))
        self._run.until("running")

    def forget(self) -> None:
        self._run.end(expected=0)
        run(LAUNCHER, "--quiet", "--store", self._store, "checkpoint", "delete", self._run.id)


class _Copy:
    """``name`` is the program with its options."""

    def __init__(self, name: str, scope: Path, copy: Path) -> None:
        self.name, self._copy = name, copy
        self._argv: list[str | Path] = [*name.split(), scope, copy]
        if name.startswith("rsync"):
            self._argv[-2:] = [f"{scope}/", f"{copy}/"]

    def record(self) -> None:
        run(*self._argv)

    def forget(self) -> None:
        shutil.rmtree(self._copy)
