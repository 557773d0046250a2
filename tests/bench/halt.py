"""`bench halt`: from the line's being written until nothing of the run moves, and until nothing of it is left."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

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
    facts = (f"{rounds} rounds", "from the write(2) of the line", "warm cache")
    return f"{heading('Halt', *facts)}\n{table(head, rows)}\n"


def _row(processes: int, rounds: int) -> list[str]:
    runs = [_halted(f"bench-{os.getpid()}-{number}", processes) for number in range(rounds)]
    frozen = [_written_until(watched, watched.reaction_seconds) for watched in runs]
    dead = [_written_until(watched, watched.dead_seconds) for watched in runs]
    survivors = sum(len(watched.kill.survivors) for watched in runs if watched.kill)
    times = [percentile(values, percent) for values in (frozen, dead) for percent in (50, 99)]
    return [str(processes), *(f"{milliseconds:.1f}" for milliseconds in times), str(survivors)]


def _halted(name: str, processes: int) -> Watched:
    argv = (sys.executable, "-I", "-S", "-c", COMMAND, str(processes))
    tree = ProcessTree.create(name)
    try:
        spec = RunSpec(argv, "/", dict(os.environ), pty=False, idle=120)
        return Monitor(spec, Judge(RuleSet.for_command(argv)), tree, relays={}).run()
    finally:
        tree.remove()


def _written_until(watched: Watched, seconds: float | None) -> float:
    """Milliseconds from the moment that the line itself names."""
    if watched.issue is None or watched.read_at is None or seconds is None:
        raise SystemExit(f"the breaker did not halt the command as it should have: {watched}")
    written = int(watched.issue.line.rsplit(maxsplit=1)[1]) / 1e9
    return (watched.read_at - written + seconds) * 1000
