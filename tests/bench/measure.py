"""Timing, statistics, and what a table must say besides its numbers."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from snapbreaker import __version__
from snapbreaker.linux.writeback import syncfs
from tests.bench.processes import Used, used


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds by the clock, and of the processors."""

    seconds: float
    used: Used


@dataclass(slots=True)
class Samples:
    """What one side took: seconds a round, and what else is to be said of it."""

    seconds: list[float] = field(default_factory=list)
    used: list[Used] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def user(self) -> float:
        return statistics.median(one.user for one in self.used)

    @property
    def system(self) -> float:
        return statistics.median(one.system for one in self.used)

    def add(self, took: Took) -> None:
        self.seconds.append(took.seconds)
        self.used.append(took.used)


def timed(work: Callable[[], object], tree: Path, cache: str) -> Took:
    """What ``work``, done by other processes, and the syncfs(2) after it take.

    ``cache``: *cold*, all caches are dropped before; *warm*, the metadata of ``tree`` is read before.
    """
    settle(tree)
    if cache == "cold":
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    else:
        run("find", tree, "-size", "-0")
    before, started = used(), time.perf_counter()
    work()
    settle(tree)
    return Took(time.perf_counter() - started, used().since(before))


def cache_option(parser: ArgumentParser) -> None:
    """For ``timed``."""
    parser.add_argument("--cache", choices=("warm", "cold"), default="warm", help="page cache before each round")


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


def compared(sides: Mapping[str, Samples], extra: Sequence[str], goals: Mapping[str, float]) -> str:
    """Each side with its median and range, and the first one's median as a part of it, which ``goals`` limit.

    *system* is the time that its system calls took in the kernel, those of all its processes: a program that did
    nothing between the same calls would take so long on one core. The clock's time is told as a multiple of that.
    """
    first = next(iter(sides.values())).median
    rows = [
        [
            name,
            f"{side.median:.2f}",
            f"{min(side.seconds):.2f} to {max(side.seconds):.2f}",
            f"{first / side.median:.2f}" + (f" (goal: {goals[name]:g})" if name in goals else ""),
            f"{side.user:.2f}",
            f"{side.system:.2f}",
            f"{side.median / side.system:.2f}" if side.system else "",
            *side.notes,
        ]
        for name, side in sides.items()
    ]
    return table(
        ["", "median, s", "range, s", "first ÷ this", "user, s", "system, s", "clock ÷ system", *extra], rows
    )


def heading(title: str, *facts: str) -> str:
    """``title``, and where and how all of the section was measured."""
    machine = f"Linux {platform.release()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    load = f"load {os.getloadavg()[0]:.1f}"
    return f"## {title}\n\nsnapbreaker {__version__}; {machine}; {'; '.join((*facts, load))}.\n"
