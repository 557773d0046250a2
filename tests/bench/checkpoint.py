"""`bench checkpoint`: recording a tree, beside copies of it."""

from __future__ import annotations

import os
import shutil
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

from tests.bench import tree
from tests.bench.measure import Samples, compared, heading, run, settle, timed
from tests.bench.sides import LAUNCHER
from tests.lab import loopfs

BACKEND = {"ext4": "filecopy", "xfs": "filecopy", "btrfs": "btrfs"}


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--files", type=int, default=160_000)
    parser.add_argument("--on", action="append", choices=sorted(BACKEND), help="filesystem; default: all of them")


def bench(options: Namespace, scratch: Path) -> str:
    facts = (
        f"{options.files:,} files",
        f"{options.cache} cache, loop images in {options.images}, syncfs included, {options.rounds} rounds",
    )
    parts = [heading("Checkpoint", *facts)]
    for fstype in options.on or BACKEND:
        filesystem = loopfs.make(fstype, scratch, fstype, 16 * loopfs.GIB)
        try:
            parts.append(f"### {fstype}\n\n{_measure(filesystem.path, fstype, options, scratch / 'store')}\n")
        finally:
            filesystem.close()
    return "\n".join(parts)


def _measure(mountpoint: Path, fstype: str, options: Namespace, store: Path) -> str:
    scope, copy = mountpoint / "scope", mountpoint / "copy"
    if fstype == "btrfs":
        run("btrfs", "subvolume", "create", scope)
    tree.make(scope, options.files)
    sides = _sides(scope, copy, store, BACKEND[fstype])
    samples = {name: Samples() for name in sides}
    for _ in range(options.rounds):
        for name, (work, remove) in sides.items():
            free = _free(mountpoint)
            samples[name].seconds.append(timed(work, scope, options.cache))
            samples[name].notes = [f"{(free - _free(mountpoint)) / 1e6:,.0f} MB"]
            remove()
    return compared(samples, ["space"])


def _sides(
    scope: Path, copy: Path, store: Path, backend: str
) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """By name: how each records the tree, and how that is removed again."""
    verb: list[str | Path] = [LAUNCHER, "--quiet", "--store", store, "checkpoint"]
    made: list[str] = []
    return {
        f"snapbreaker checkpoint create ({backend})": (
            lambda: made.append(run(*verb, "create", "--backend", backend, "--scope", scope).strip()),
            lambda: run(*verb, "delete", made.pop()),
        ),
        "rsync -aHAX": (lambda: run("rsync", "-aHAX", f"{scope}/", f"{copy}/"), lambda: shutil.rmtree(copy)),
        "cp -a": (lambda: run("cp", "-a", scope, copy), lambda: shutil.rmtree(copy)),
    }


def _free(mountpoint: Path) -> int:
    settle(mountpoint)
    space = os.statvfs(mountpoint)
    return space.f_bfree * space.f_frsize
