"""`bench memory`: the most memory that snapbreaker's processes have had, for a tree of a million files."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from tests.bench import filesystem, tree
from tests.bench.held import LAUNCHER, HeldRun
from tests.bench.measure import heading, run, settle, table
from tests.bench.peaks import INTERVAL, Peaks
from tests.bench.sides import changer

GOAL = 300  # MB
HEAD = ["", "largest process, MB", "all together, MB"]
NOTE = f"""\
*Largest process* is the highest VmHWM of any of them; *all together* the highest sum of their Pss (what several
share counts once), looked at every {INTERVAL * 1000:.0f} ms. Without the command's own processes. Goal: {GOAL}.
"""


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--paths", type=int, default=25_000, help="that the command changes before it is halted")
    parser.add_argument("--backend", choices=("btrfs", "filecopy"), default="filecopy")


def bench(options: Namespace, scratch: Path) -> str:
    fstype = "btrfs" if options.backend == "btrfs" else "ext4"
    loop = filesystem.make(fstype, scratch)
    try:
        scope = loop.path / "scope"
        if fstype == "btrfs":
            run("btrfs", "subvolume", "create", scope)
        tree.make(scope, options.files, empty=True)
        settle(scope)
        rows = _rows(scope, scratch / "store", options)
    finally:
        loop.close()
    facts = (
        f"{options.files:,} empty files on {fstype} ({options.backend})",
        f"{options.paths:,} paths changed",
        f"{options.rounds} rounds",
    )
    return f"{heading('Memory', *facts)}\n{table(HEAD, rows)}\n\n{NOTE}"


def _rows(scope: Path, store: Path, options: Namespace) -> list[list[str]]:
    with Peaks() as peaks:
        for _ in range(options.rounds):
            _halt_and_commit(scope, store, options, peaks)
    return [[name, f"{one / 1e6:,.0f}", f"{together / 1e6:,.0f}"] for name, one, together in peaks.found()]


def _halt_and_commit(scope: Path, store: Path, options: Namespace, peaks: Peaks) -> None:
    """The same change twice: the first is halted, the second stays, and is undone later."""
    argv, backend = changer(scope, options.files, options.paths), ("--backend", options.backend)
    own: list[str | Path] = [LAUNCHER, "--quiet", "--store", store]
    peaks.begin("checkpoint")
    halted = HeldRun(store, scope, *argv, status=1, options=backend)
    _changed(halted, peaks)
    peaks.begin("rollback of a halted run")
    halted.end(expected=1)
    peaks.begin("")
    run(*own, "checkpoint", "delete", halted.id)
    committed = HeldRun(store, scope, *argv, options=backend)
    _changed(committed, peaks)
    peaks.begin("commit")
    committed.end(expected=0)
    peaks.begin("rollback of a committed run")
    run(*own, "rollback", "--yes", committed.id)
    peaks.begin("")
    run(*own, "checkpoint", "delete", committed.id)


def _changed(held: HeldRun, peaks: Peaks) -> None:
    """Until its command has made its change, whose own processes do not count."""
    peaks.besides = {held.until("running")["pid"]}
    peaks.begin("while the command runs")
    held.until_done()
