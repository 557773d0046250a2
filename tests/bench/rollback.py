"""`bench rollback`: what a command changed goes back: a halted run on ext4, a live subvolume on btrfs."""

from __future__ import annotations

import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tests import comparer
from tests.bench import filesystem, tree
from tests.bench.measure import Samples, Took, cache_option, compared, heading, run, timed
from tests.bench.sides import Bare, Halted, Rsync, Snapbreaker, Snapper, Undo

GOALS = {
    "ext4": {"rsync -aHAX --delete": 0.6},
    "btrfs": {"snapper undochange": 0.8, "rsync -aHAX --delete": 0.3},
}
NOTE = (
    "snapbreaker's time includes the comparison of the whole tree with the checkpoint afterwards and, on ext4, "
    "that all hard links go."
)


def arguments(parser: ArgumentParser) -> None:
    cache_option(parser)
    parser.add_argument("--files", type=int, default=160_000)
    parser.add_argument("--paths", type=int, default=25_000, help="how many paths the change touches")
    parser.add_argument("--on", action="append", choices=sorted(GOALS), help="filesystem; default: both")


def bench(options: Namespace, scratch: Path) -> str:
    facts = (
        f"{options.files:,} files, {options.paths:,} of them changed",
        f"{options.cache} cache, loop images in {options.images}, syncfs included, {options.rounds} rounds",
    )
    parts = [heading("Rollback", *facts)]
    parts += [f"### {fstype}\n\n{_measured(fstype, options, scratch)}\n" for fstype in options.on or GOALS]
    return "\n".join([*parts, NOTE + "\n"])


def _measured(fstype: str, options: Namespace, scratch: Path) -> str:
    loop = filesystem.make(fstype, scratch)
    try:
        ground = GROUNDS[fstype](loop.path, scratch)
        tree.make(ground.pristine, options.files)
        before = comparer.snapshot(ground.pristine)
        samples = {side.name: Samples() for side in ground.sides}
        backs: list[float] = []
        for number in range(options.rounds):
            for side in ground.sides:
                work = ground.begin()
                samples[side.name].add(_took(side, work, options, backs))
                if number == options.rounds - 1:
                    samples[side.name].notes = [str(_different(before, work, side))]
                side.after()
                ground.end()
    finally:
        loop.close()
    back = statistics.median(backs)
    for taken in samples.values():
        taken.notes.append(f"{back / taken.median:.2f}")
    table = compared(samples, ["paths left different", "until back ÷ this"], GOALS[fstype])
    return f"{table}\n\nUntil everything was back snapbreaker took {back:.2f} s (median); the rest is the proof."


class _Ground(Protocol):
    """Where the sides work: each between ``begin`` and ``end``, on what was made at ``pristine``."""

    pristine: Path
    sides: list[Undo]

    def begin(self) -> Path: ...

    def end(self) -> None: ...


class _Snapshots:
    """btrfs: each round has a writable snapshot of its own of the pristine tree."""

    def __init__(self, mountpoint: Path, scratch: Path) -> None:
        self.pristine, self._work = mountpoint / "pristine", mountpoint / "work"
        self.sides: list[Undo] = [
            Snapbreaker(scratch / "store", "btrfs"),
            Snapper(scratch / "snapper"),
            Rsync(snapshots=True),
            Bare(snapshots=True),
        ]
        run("btrfs", "subvolume", "create", self.pristine)

    def begin(self) -> Path:
        run("btrfs", "subvolume", "snapshot", self.pristine, self._work)
        return self._work

    def end(self) -> None:
        for line in run("btrfs", "subvolume", "list", "-o", self._work).splitlines():
            run("btrfs", "subvolume", "delete", self._work.parent / line.partition(" path ")[2])
        run("btrfs", "subvolume", "delete", self._work)


class _Same:
    """ext4: the sides have the same tree in turn; what one left different would be told of the next as well."""

    def __init__(self, mountpoint: Path, scratch: Path) -> None:
        self.pristine = mountpoint / "work"
        self.sides: list[Undo] = [
            Halted(scratch / "store", "filecopy"),
            Rsync(snapshots=False),
            Bare(snapshots=False),
        ]
        self.pristine.mkdir()

    def begin(self) -> Path:
        return self.pristine

    def end(self) -> None:
        pass


GROUNDS: dict[str, Callable[[Path, Path], _Ground]] = {"ext4": _Same, "btrfs": _Snapshots}


def _took(side: Undo, work: Path, options: Namespace, backs: list[float]) -> Took:
    def undo() -> None:
        if (back := side.undo()) is not None:
            backs.append(back)

    side.change(work, options.files, options.paths)
    return timed(undo, work, options.cache)


def _different(before: dict[bytes, comparer.Facts], work: Path, side: Undo) -> int:
    after = comparer.snapshot(work, exclude=side.leaves)
    return len({line.partition(": ")[0] for line in comparer.differences(before, after)})
