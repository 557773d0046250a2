"""`bench monitor`: how fast output goes through the breaker, by itself and with google-re2, beside its peers."""

from __future__ import annotations

import os
import pty
import resource
import statistics
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from snapbreaker.monitor import prefilter
from snapbreaker.monitor.judge import Judge
from snapbreaker.monitor.monitor import Monitor
from snapbreaker.monitor.packs import BUILT_IN, DEFAULT, builtin_pack
from snapbreaker.monitor.process_tree import ProcessTree
from snapbreaker.monitor.rules import RuleSet
from snapbreaker.monitor.scanner import scanner
from snapbreaker.monitor.streams import CHUNK, Relay
from snapbreaker.monitor.watched import RunSpec
from tests.bench.measure import heading, table

CORPUS = Path(__file__).parents[1] / "corpus"

WORDS = "error|warn|fail|skip|fatal|panic|exception|denied|cannot|unable|not found|no such"
HEAD = ["output", "side", "MB/s", "range", "MB per CPU second of ours", "peak RSS, MiB"]


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--megabytes", type=int, default=100, help="output of a round")
    parser.add_argument("--text", help="only the one whose name begins so")


def bench(options: Namespace, scratch: Path) -> str:
    rows: list[list[str]] = []
    for name, text in _texts().items():
        if not name.startswith(options.text or ""):
            continue
        file = scratch / name
        size = options.megabytes * 1_000_000
        file.write_bytes((text * (size // len(text) + 1))[:size].rpartition(b"\n")[0] + b"\n")
        for side, work in _sides(file).items():
            rows.append(
                _row(name, side, [_took(work) for _ in range(options.rounds + 1)][1:], file.stat().st_size)
            )
    facts = (f"{options.megabytes} MB, to /dev/null", "all packs loaded", f"{options.rounds} rounds")
    return f"{heading('Monitor', *facts)}\n{table(HEAD, rows)}\n"


def _texts() -> dict[str, bytes]:
    """Of a build that says nothing; names of files, some of them telling; what is hardest: innocent lines that do
    not look so."""
    steps = b"".join(
        b"[%6d] cc -O2 -c src/part%d/unit%d.c -o out/part%d/unit%d.o\n" % (n, n % 7, n, n % 7, n)
        for n in range(20000)
    )
    listing = subprocess.run(["find", "/usr", "-ls"], stdout=subprocess.PIPE, check=True).stdout
    corpus = b"".join(path.read_bytes() for path in sorted(CORPUS.glob("*/good*.log")))
    return {"build": steps, "find -ls": listing, "corpus, good logs": corpus}


def _sides(file: Path) -> dict[str, Callable[[], None]]:
    packs = [builtin_pack(DEFAULT), *(builtin_pack(name) for name in BUILT_IN if name != DEFAULT)]

    def through(plain: bool, terminal: bool) -> Callable[[], None]:
        with patch.object(prefilter, "scanner", (lambda *_: None) if plain else scanner):
            rules = RuleSet(packs)
        return lambda: _watched(file, rules, terminal)

    return {
        "cat, a pipe, cat": lambda: _shell(f"cat '{file}' | cat >/dev/null"),
        "cat, grep -aiEc": lambda: _shell(f"cat '{file}' | grep -aiEc '{WORDS}' >/dev/null || test $? = 1"),
        "snapbreaker, pipes, plain Python": through(plain=True, terminal=False),
        "snapbreaker, pipes, google-re2": through(plain=False, terminal=False),
        "a bare relay of a pty": lambda: _relayed(file),
        "snapbreaker, pty, plain Python": through(plain=True, terminal=True),
        "snapbreaker, pty, google-re2": through(plain=False, terminal=True),
    }


def _shell(script: str) -> None:
    subprocess.run(["sh", "-c", script], check=True)


def _relayed(file: Path) -> None:
    pid, master = pty.fork()
    if pid == 0:
        os.execvp("cat", ["cat", str(file)])
    with open(os.devnull, "wb", buffering=0) as nowhere:
        try:
            while data := os.read(master, CHUNK):
                nowhere.write(data)
        except OSError:  # EIO: all have closed it
            pass
    os.waitpid(pid, 0)
    os.close(master)


def _watched(file: Path, rules: RuleSet, terminal: bool) -> None:
    tree = ProcessTree.create(f"bench-{os.getpid()}")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        spec = RunSpec(("cat", str(file)), "/", dict(os.environ), pty=terminal, idle=120)
        relay = Relay(nowhere)
        relays = dict.fromkeys(("stdout", "stderr", "pty"), relay)
        watched = Monitor(spec, Judge(rules), tree, relays=relays).run()
        relay.close()
    finally:
        os.close(nowhere)
        tree.remove()
    if watched.issue:
        raise SystemExit(f"the breaker halted innocent output: {watched.issue}")


def _took(work: Callable[[], None]) -> tuple[float, float, float]:
    """Seconds by the clock and of our own processor time, and our peak RSS in MiB: in a process of its own."""
    wait, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            started = time.perf_counter()
            work()
            seconds = time.perf_counter() - started
            own = resource.getrusage(resource.RUSAGE_SELF)
            os.write(tell, f"{seconds} {own.ru_utime + own.ru_stime} {own.ru_maxrss / 1024}".encode())
            status = 0
        except SystemExit as error:
            print(error, file=sys.stderr)
        finally:
            os._exit(status)
    os.close(tell)
    with open(wait, "rb") as told:
        text = told.read().decode()
    _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit("a side of `bench monitor` failed")
    clock, cpu, peak = map(float, text.split())
    return clock, cpu, peak


def _row(name: str, side: str, took: list[tuple[float, float, float]], size: int) -> list[str]:
    rates = sorted(size / 1e6 / seconds for seconds, _, _ in took)
    ours = "snapbreaker" in side
    cpu = statistics.median(size / 1e6 / own for _, own, _ in took) if ours else 0
    return [
        name,
        side,
        f"{statistics.median(rates):.1f}",
        f"{rates[0]:.1f} to {rates[-1]:.1f}",
        f"{cpu:.1f}" if ours else "",
        f"{max(rss for _, _, rss in took):.0f}" if ours else "",
    ]


if __name__ == "__main__":
    sys.exit("scripts/bench monitor")
