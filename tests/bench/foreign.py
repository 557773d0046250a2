"""`bench foreign`: what it costs to watch who writes, and how many short-lived foreign writers are recognised."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from tests.bench.measure import heading, table
from tests.lab import loopfs
from tests.lab.foreign_run import Run

CREATE = """\
import os, sys
for number in range(int(sys.argv[2])):
    fd = os.open(f"{sys.argv[1]}/{number}", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"x")
    os.close(fd)
for number in range(int(sys.argv[2])):
    os.unlink(f"{sys.argv[1]}/{number}")
"""
# Each writer ends at once, and with it whoever started it.
WRITERS = 'i=0; while [ $i -lt $2 ]; do sh -c "sh -c \\"echo x >$1/$i\\"; :"; i=$((i+1)); done'


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--files", type=int, default=10_000, help="that the run creates, writes and unlinks")
    parser.add_argument("--writers", type=int, default=2_000, help="foreign processes that write a file each")


def bench(options: Namespace, scratch: Path) -> str:
    rows = [row for fstype in loopfs.FSTYPES for row in _rows(options, scratch, fstype)]
    head = ["filesystem", "", "s", "range", "watcher, \u00b5s of CPU an event", "recognised", "not judged"]
    facts = (f"{options.rounds} rounds", f"{options.files:,} files", f"{options.writers:,} foreign writers")
    return f"{heading('Foreign writes', *facts)}\n{table(head, rows)}\n"


def _rows(options: Namespace, scratch: Path, fstype: str) -> list[list[str]]:
    filesystem = loopfs.make(fstype, scratch, fstype)
    try:
        place = _Place(filesystem.path, scratch / "record")
        return [
            [fstype, "not watched", *_created(options, place, {"FOREIGN_NONE": "1"}), "", ""],
            ["", "watched", *_created(options, place, {}), *_recognised(options, place, {})],
            [
                "",
                "watched, not told of forks",
                "",
                "",
                "",
                *_recognised(options, place, {"FOREIGN_NO_FORKS": "1"}),
            ],
        ]
    finally:
        filesystem.close()


class _Place:
    def __init__(self, root: Path, record: Path) -> None:
        self.root, self.record = root, record

    def start(self, environment: dict[str, str]) -> Run:
        return Run(self.record, self.root, **environment)


def _created(options: Namespace, place: _Place, environment: dict[str, str]) -> list[str]:
    seconds, used = [], []
    for _ in range(options.rounds):
        run = place.start(environment)
        seconds.append(run(sys.executable, "-c", CREATE, place.root, str(options.files))["seconds"])
        if run.pid:
            used.append(_cpu_seconds(run.pid) / options.files * 1e6)
        run.close()
    spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
    return [f"{statistics.median(seconds):.2f}", spread, f"{statistics.median(used):.0f}" if used else ""]


def _recognised(options: Namespace, place: _Place, environment: dict[str, str]) -> list[str]:
    directory = place.root / f"foreign{len(environment)}"
    directory.mkdir()
    run = place.start(environment)
    subprocess.run(["sh", "-c", WRITERS, "sh", directory, str(options.writers)], check=True)
    writes = run.stop()
    run.close()
    assert writes.complete, writes.reason
    return [f"{len(writes.foreign_only) / options.writers:.1%}", str(writes.unjudged)]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
