"""`bench halt`: from the line's being written until nothing of the run moves, and until nothing of it is left.

Each round has a process of its own: as in a run, it is the first line that this one judges.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from multiprocessing import get_context
from pathlib import Path

from snapbreaker.linux.memory import lock_memory
from snapbreaker.monitor.judge import Judge
from snapbreaker.monitor.monitor import Monitor
from snapbreaker.monitor.process_tree import ProcessTree
from snapbreaker.monitor.rules import RuleSet
from snapbreaker.monitor.watched import RunSpec, Watched
from tests.bench.measure import heading, percentile, table

# One process writes the line, the others do nothing but compute, in the same run. They begin when all are there:
# the one that makes them would get ever less of the processor.
COMMAND = """\
import os, sys, time
wait, go = os.pipe()
for _ in range(int(sys.argv[1]) - 1):
    if os.fork() == 0:
        os.close(go)
        os.read(wait, 1)
        while True:
            pass
os.close(go)
time.sleep(0.2)
os.write(1, b"ERROR: written at %d\\n" % time.monotonic_ns())
while True:
    pass
"""


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--processes", type=int, action="append", help="busy processes; default: 1 and 500")


def bench(options: Namespace, scratch: Path) -> str:
    rounds = max(options.rounds, 20)
    rows = [_row(processes, rounds) for processes in options.processes or (1, 500)]
    head = ["busy processes", "frozen p50, ms", "frozen p99, ms", "dead p50, ms", "dead p99, ms", "survivors"]
    facts = (f"{rounds} rounds", "from the write(2) of the line", "the first line that the process judges")
    return f"{heading('Halt', *facts)}\n{table(head, rows)}\n"


def _row(processes: int, rounds: int) -> list[str]:
    with get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        names = [(f"bench-{os.getpid()}-{number}", processes) for number in range(rounds)]
        frozen, dead, survivors = zip(*pool.starmap(_halted, names, chunksize=1), strict=True)
    times = [percentile(values, percent) for values in (frozen, dead) for percent in (50, 99)]
    return [str(processes), *(f"{milliseconds:.1f}" for milliseconds in times), str(sum(survivors))]


def _halted(name: str, processes: int) -> tuple[float, float, int]:
    """Milliseconds until all was frozen, and until it was dead; how many survived."""
    argv = (sys.executable, "-I", "-S", "-c", COMMAND, str(processes))
    tree = ProcessTree.create(name)
    lock_memory()  # as `run` does
    try:
        spec = RunSpec(argv, "/", dict(os.environ), pty=False, idle=120)
        watched = Monitor(spec, Judge(RuleSet.for_command(argv)), tree, relays={}).run()
    finally:
        tree.remove()
    frozen, dead = (_written_until(watched, end) for end in (watched.reaction_seconds, watched.dead_seconds))
    return frozen, dead, len(watched.kill.survivors) if watched.kill else 0


def _written_until(watched: Watched, seconds: float | None) -> float:
    """Milliseconds from the moment that the line itself names."""
    if watched.issue is None or watched.read_at is None or seconds is None:
        raise SystemExit(f"the breaker did not halt the command as it should have: {watched}")
    written = int(watched.issue.line.rsplit(maxsplit=1)[1]) / 1e9
    return (watched.read_at - written + seconds) * 1000
