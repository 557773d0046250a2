"""`scripts/bench [halt|rollback|checkpoint]…`: prints a Markdown section for each."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from pathlib import Path

from tests.bench import checkpoint, halt, rollback
from tests.lab import sessions

BENCHES = {"halt": halt, "rollback": rollback, "checkpoint": checkpoint}


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("scripts/bench needs root: it makes filesystems and cgroups")
    parser = ArgumentParser(prog="scripts/bench", description="Snapbreaker beside its peers, on this machine.")
    verbs = parser.add_subparsers(dest="bench", required=True)
    for name, module in BENCHES.items():
        verb = verbs.add_parser(name, help=(module.__doc__ or "").partition(": ")[2].strip())
        verb.add_argument("--rounds", type=int, default=100 if name == "halt" else 3)
        verb.add_argument("--cache", choices=("warm", "cold"), default="warm", help="page cache before each round")
        module.arguments(verb)
    options = parser.parse_args()
    # Images lie on a disk, as a server's filesystems do.
    scratch = sessions.open_session(Path("/var/tmp"))
    os.environ["SNAPBREAKER_RUNTIME"] = str(scratch / "run")  # its lock is not the machine's
    try:
        print(BENCHES[options.bench].bench(options, scratch))
    finally:
        sessions.close_session(scratch)


main()
