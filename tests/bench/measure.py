"""Timing, statistics, and what a table must say besides its numbers."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from snapbreaker import __version__
from snapbreaker.linux.inode import syncfs


@dataclass(slots=True)
class Samples:
    """What one side took: seconds a round, and what else is to be said of it."""

    seconds: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def timed(work: Callable[[], object], tree: Path, cache: str) -> float:
    """Seconds of ``work`` and of the syncfs(2) after it.

    ``cache``: *cold*, all caches are dropped before; *warm*, the metadata of ``tree`` is read before.
    """
    settle(tree)
    if cache == "cold":
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    else:
        run("find", tree, "-size", "-0")
    started = time.perf_counter()
    work()
    settle(tree)
    return time.perf_counter() - started


def settle(filesystem: Path) -> None:
    fd = os.open(filesystem, os.O_RDONLY)
    try:
        syncfs(fd)
    finally:
        os.close(fd)


def run(*argv: str | Path) -> str:
    """Run a program to its end; its standard output. Raises with what it said when it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"{argv[0]} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def compared(sides: Mapping[str, Samples], extra: Sequence[str]) -> str:
    """Each side with its median, its range and its ratio to the first one's median."""
    base = next(iter(sides.values())).median
    rows = [
        [
            name,
            f"{side.median:.2f}",
            f"{min(side.seconds):.2f} to {max(side.seconds):.2f}",
            f"{side.median / base:.2f}",
            *side.notes,
        ]
        for name, side in sides.items()
    ]
    return table(["", "median, s", "range, s", "ratio", *extra], rows)


def heading(title: str, *facts: str) -> str:
    machine = f"Linux {platform.release()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    return f"## {title}\n\nsnapbreaker {__version__}; {machine}; {'; '.join(facts)}.\n"
