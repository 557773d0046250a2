"""`bench guard`: apt-get install behind the breaker, with the guard on and without."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

from tests.bench import filesystem
from tests.bench.held import LAUNCHER, SHELL, HeldRun
from tests.bench.measure import Samples, Took, compared, heading, settle
from tests.bench.processes import used
from tests.lab import debian

PACKAGES = ("git", "nginx-light", "redis-server")
ON, OFF, ALONE = "behind the breaker, guard on", "behind the breaker, guard never asked", "without snapbreaker"
NOTE = """\
From the command's start to its end, with a syncfs(2): neither the checkpoint nor the commit. "Never asked" is the
same run, hard links and all, whose guard has marked nothing. dpkg does without fsync(2), which would hide much.
"""


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--packages", nargs="+", default=PACKAGES, help="of the lab's repository")


def bench(options: Namespace, scratch: Path) -> str:
    if reason := debian.missing():
        raise SystemExit(reason)
    sides: dict[str, Callable[[Path, Path], Took]] = {
        ON: lambda root, store: _behind(root, store, options, LAUNCHER),
        OFF: lambda root, store: _behind(root, store, options, sys.executable, "-m", "tests.bench.unguarded"),
        ALONE: lambda root, store: _alone(root, store, options),
    }
    samples = {name: Samples() for name in sides}
    for number in range(options.rounds):
        for name, side in sides.items():
            loop = filesystem.make("ext4", scratch)
            try:
                root = loop.path / "root"
                debian.unpack(root)
                settle(root)
                before = _count(root)
                samples[name].add(side(root, scratch / f"store-{number}-{list(sides).index(name)}"))
                samples[name].notes = [f"{_count(root) - before:,}"]
            finally:
                loop.close()
    facts = (
        f"apt-get install {' '.join(options.packages)} in a Debian root on ext4",
        f"warm cache, loop image in {options.images}, syncfs included, {options.rounds} rounds",
    )
    return f"{heading('Guard', *facts)}\n{compared(samples, ['new paths'], {OFF: 1.25, ALONE: 1.25})}\n\n{NOTE}"


def _install(root: Path, options: Namespace) -> list[str]:
    install = ["env", *(f"{name}={value}" for name, value in debian.ENVIRONMENT.items())]
    install += ["chroot", str(root), "apt-get", "install", "-y", *options.packages]
    return ["sh", "-c", '"$@" && sync --file-system "$0"', str(root), *install]


def _behind(root: Path, store: Path, options: Namespace, *entry: str | Path) -> Took:
    run = HeldRun(store, root, *_install(root, options), entry=entry, options=("--backend", "filecopy"))
    run.until("running")
    before, started = used(), time.perf_counter()
    run.until_done()
    took = Took(time.perf_counter() - started, used().since(before))
    run.let_go()  # without a guard it may end in any way
    return took


def _alone(root: Path, store: Path, options: Namespace) -> Took:
    log = store.with_name(store.name + ".log")
    before, started = used(), time.perf_counter()
    argv: list[str | Path] = ["sh", "-c", SHELL, "sh", log, "0", *_install(root, options)]
    if subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).returncode:
        raise SystemExit(log.read_text()[-2000:])
    return Took(time.perf_counter() - started, used().since(before))


def _count(root: Path) -> int:
    return sum(len(directories) + len(names) for _, directories, names in os.walk(root))
