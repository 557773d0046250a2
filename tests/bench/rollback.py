"""`bench rollback`: a changed btrfs subvolume goes back to its snapshot, live."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from tests import comparer
from tests.bench import tree
from tests.bench.measure import Samples, compared, heading, run, timed
from tests.bench.sides import Rsync, Snapbreaker, Snapper, Undo
from tests.lab import loopfs


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--files", type=int, default=160_000)
    parser.add_argument("--paths", type=int, default=25_000, help="how many paths the change touches")


def bench(options: Namespace, scratch: Path) -> str:
    filesystem = loopfs.make("btrfs", scratch, "btrfs", 16 * loopfs.GIB)
    try:
        pristine = filesystem.path / "pristine"
        run("btrfs", "subvolume", "create", pristine)
        tree.make(pristine, options.files)
        before = comparer.snapshot(pristine)
        sides: list[Undo] = [Snapbreaker(scratch / "store", "btrfs"), Snapper(scratch / "snapper"), Rsync()]
        samples = {side.name: Samples() for side in sides}
        for number in range(options.rounds):
            for side in sides:
                work = filesystem.path / f"work-{number}-{sides.index(side)}"
                run("btrfs", "subvolume", "snapshot", pristine, work)
                samples[side.name].seconds.append(_seconds(side, work, options))
                if number == options.rounds - 1:
                    samples[side.name].notes = [str(_different(before, work, side))]
    finally:
        filesystem.close()
    facts = (
        f"{options.files:,} files, {options.paths:,} of them changed",
        f"{options.cache} cache, loop image in {options.images}, syncfs included, {options.rounds} rounds",
    )
    note = "snapbreaker's time includes the comparison of the whole tree with the checkpoint afterwards."
    table = compared(samples, ["paths left different"])
    return f"{heading('Rollback of a live btrfs subvolume', *facts)}\n{table}\n\n{note}\n"


def _seconds(side: Undo, work: Path, options: Namespace) -> float:
    """One round, on a writable snapshot of its own of the pristine tree."""
    side.before(work)
    tree.change(work, options.files, options.paths)
    return timed(side.undo, work, options.cache)


def _different(before: dict[bytes, comparer.Facts], work: Path, side: Undo) -> int:
    after = comparer.snapshot(work, exclude=side.leaves)
    return len({line.partition(": ")[0] for line in comparer.differences(before, after)})
