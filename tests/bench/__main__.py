"""`scripts/bench [halt|overhead|rollback|checkpoint|foreign]…`: prints a Markdown section for each."""

from __future__ import annotations

import os
import signal
import sys
from argparse import ArgumentParser
from pathlib import Path

from tests.bench import checkpoint, foreign, halt, overhead, rollback
from tests.lab import sessions

PLACES = {"memory": Path("/dev/shm"), "disk": Path("/var/tmp")}
ROUNDS = {"halt": 100, "overhead": 30}
BENCHES = {"halt": halt, "overhead": overhead, "rollback": rollback, "checkpoint": checkpoint, "foreign": foreign}


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("scripts/bench needs root: it makes filesystems and cgroups")
    parser = ArgumentParser(prog="scripts/bench", description="Snapbreaker beside its peers, on this machine.")
    verbs = parser.add_subparsers(dest="bench", required=True)
    for name, module in BENCHES.items():
        verb = verbs.add_parser(name, help=(module.__doc__ or "").partition(": ")[2].strip())
        verb.add_argument("--rounds", type=int, default=ROUNDS.get(name, 3))
        verb.add_argument("--cache", choices=("warm", "cold"), default="warm", help="page cache before each round")
        verb.add_argument("--images", choices=sorted(PLACES), default="memory", help="where the filesystems lie")
        module.arguments(verb)
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # also when a shell had them ignored
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    scratch = sessions.open_session(PLACES[options.images])
    os.environ["SNAPBREAKER_RUNTIME"] = str(scratch / "run")  # its lock is not the machine's
    try:
        print(BENCHES[options.bench].bench(options, scratch))
    finally:
        sessions.close_session(scratch)


main()
