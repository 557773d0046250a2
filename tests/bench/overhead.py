"""`bench overhead`: what a run costs besides its command and the file checkpoint, from exec to exit."""

from __future__ import annotations

import json
import os
import subprocess
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.measure import Samples, heading, run, table
from tests.lab import loopfs
from tests.lab.machine import Machine

BUNDLER = Path(__file__).resolve().parents[2] / "scripts/bundle"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # a version manager would take longer to find python3 than it runs


HEAD = ["", "median, ms", "range, ms"]
# Times a command in the machine itself: seconds from exec to exit, and what it printed.
TIMER = """
import json, subprocess, sys, time
started = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, capture_output=True, text=True)
print(json.dumps([time.perf_counter() - started, done.stdout]))
sys.stderr.write(done.stderr)
sys.exit(done.returncode)
"""


class Place(NamedTuple):
    """Where is measured: ``run`` executes a command there to its end, and returns seconds and standard output."""

    run: Callable[[Sequence[str]], tuple[float, str]]
    bundle: str
    scope: str
    store: str


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--files", type=int, default=5, help="files in the scope")


def bench(options: Namespace, scratch: Path) -> str:
    filesystem = loopfs.make("ext4", scratch, "ext4")
    try:
        scope = filesystem.path / "scope"
        scope.mkdir()
        for number in range(options.files):
            (scope / str(number)).write_text(f"{number}\n")
        run(BUNDLER, scratch / "snapbreaker")
        place = Place(_here, str(scratch / "snapbreaker"), str(scope), str(filesystem.path / "store"))
        rows = measured(place, options.rounds)
    finally:
        filesystem.close()
    facts = (f"{options.files} files on ext4, loop image in {options.images}", f"{options.rounds} rounds in turn")
    small = f"{heading('Overhead', *facts)}\n{table(HEAD, rows)}\n"
    return "\n".join([small, *(system(fstype, options, scratch) for fstype in ("btrfs", "ext4"))])


def system(fstype: str, options: Namespace, scratch: Path) -> str:
    """The same on a whole machine, with packages, units, accounts and ports captured before and after."""
    machine = Machine.create(fstype, scratch)
    try:
        machine.boot()

        def inside(argv: Sequence[str]) -> tuple[float, str]:
            done = machine.run("python3", "-I", "-c", TIMER, *argv, timeout=300)
            if done.returncode:
                raise SystemExit(f"{' '.join(argv)}: {done.stderr.strip()}")
            seconds, said = json.loads(done.stdout)
            return seconds, said

        rows = measured(Place(inside, "snapbreaker", "", "/var/lib/snapbreaker"), options.rounds)
        files = int(inside(["sh", "-c", "find / -xdev | wc -l"])[1])
    finally:
        machine.close()
    facts = (f"a booted Debian with {files:,} files on {fstype}, the system as scope", f"{options.rounds} rounds")
    return f"{heading(f'Overhead of a system run on {fstype}', *facts)}\n{table(HEAD, rows)}\n"


def measured(place: Place, rounds: int) -> list[list[str]]:
    """Rows of the table. A first round, which does not count, fills the caches."""
    own = [place.bundle, "--quiet", "--store", place.store]
    sides: dict[str, Sequence[str]] = {
        "true": ["true"],
        "python3 -I -c pass": ["python3", "-I", "-c", "pass"],
        "snapbreaker --version": [place.bundle, "--version"],
        "snapbreaker run -- true": [*own, "run", *(["--scope", place.scope] if place.scope else []), "--", "true"],
    }
    samples = {name: Samples() for name in sides}
    besides = samples["… besides the file checkpoint"] = Samples()
    rest = samples["… and besides the comparison of all files at its end"] = Samples()
    for _ in range(rounds + 1):
        for name, argv in sides.items():
            samples[name].seconds.append(place.run(argv)[0])
        report = json.loads(place.run([*own, "report", "--last", "--format", "json"])[1])
        checkpoint = sum(volume["seconds"] for volume in report["volumes"])
        besides.seconds.append(samples["snapbreaker run -- true"].seconds[-1] - checkpoint)
        comparison = sum(phase["seconds"] for phase in report["timeline"] if phase["name"] == "commit")
        rest.seconds.append(besides.seconds[-1] - comparison)
    return [_row(name, side.seconds[1:]) for name, side in samples.items()]


def _row(name: str, seconds: list[float]) -> list[str]:
    median = Samples(seconds).median
    return [name, f"{median * 1000:.1f}", f"{min(seconds) * 1000:.1f} to {max(seconds) * 1000:.1f}"]


def _here(argv: Sequence[str]) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run(
        argv, env={**os.environ, "PATH": PATH}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()}")
    return seconds, done.stdout
