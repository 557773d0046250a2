"""`scripts/bench BENCH [OPTION…]`: measures, and prints a section in Markdown."""

from __future__ import annotations

import os
import signal
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from snapbreaker.linux.process import become_subreaper
from tests.bench import checkpoint, foreign, guard, halt, lvm, memory, monitor, overhead, overlay, rollback, zfs
from tests.lab import sessions

PLACES = {"memory": Path("/dev/shm"), "disk": Path("/var/tmp")}
ROUNDS = {"halt": 100, "overhead": 30, "memory": 1}
BENCHES = {
    "checkpoint": checkpoint,
    "rollback": rollback,
    "guard": guard,
    "memory": memory,
    "overhead": overhead,
    "overlay": overlay,
    "halt": halt,
    "monitor": monitor,
    "foreign": foreign,
    "lvm": lvm,
    "zfs": zfs,
}
EXAMPLES = """\
examples:
  scripts/bench checkpoint --images disk              5.6 GB and copies of it: 20 GB below /var/tmp
  scripts/bench rollback --on ext4 --images disk
  scripts/bench rollback --on btrfs --rounds 5
  scripts/bench checkpoint --on ext4 --cache cold --images disk
  scripts/bench guard; scripts/bench memory

Each says the load that it met: numbers of a busy machine are none.
"""


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("scripts/bench needs root: it makes filesystems and cgroups")
    parser = ArgumentParser(
        prog="scripts/bench",
        description="snapbreaker beside its peers, on this machine.",
        epilog=EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="bench", required=True)
    for name, module in BENCHES.items():
        verb = verbs.add_parser(name, help=(module.__doc__ or "").partition(": ")[2].strip())
        verb.add_argument("--rounds", type=int, default=ROUNDS.get(name, 3))
        verb.add_argument("--images", choices=sorted(PLACES), default="memory", help="where the filesystems lie")
        module.arguments(verb)
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # also when a shell had them ignored
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    become_subreaper()  # so that the processor time of orphans is found
    scratch = sessions.open_session(PLACES[options.images])
    os.environ["SNAPBREAKER_RUNTIME"] = str(scratch / "run")  # its lock is not the machine's
    try:
        print(BENCHES[options.bench].bench(options, scratch))
    finally:
        sessions.close_session(scratch)


main()
