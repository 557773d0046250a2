"""`bench overlay`: setting a sandbox up, apt inside and outside of one, and a commit beside rsync(1)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from snapbreaker.sandbox.apply import apply
from snapbreaker.sandbox.sandbox import Options
from tests.bench.measure import Samples, heading, run, settle, table
from tests.bench.overhead import BUNDLER, HEAD, TIMER, _row
from tests.fs.sandboxed import Sandboxed
from tests.lab import loopfs
from tests.lab.machine import Machine

# What `run` does, by hand: a namespace, a tmpfs, an overlay, the command.
BY_HAND = """mount -t tmpfs none "$2" && mkdir "$2/upper" "$2/work" &&
mount -t overlay none -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$1" && exec "$3"
"""
INSTALL = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-qqy", "--no-install-recommends")


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--paths", type=int, default=25_000, help="paths that a commit applies")
    parser.add_argument("--package", default="nginx-light", help="what apt installs")


def bench(options: Namespace, scratch: Path) -> str:
    filesystem = loopfs.make("ext4", scratch, "ext4", 4 * loopfs.GIB)
    try:
        parts = [_set_up(options, scratch, filesystem.path), _commit(options, scratch, filesystem.path)]
    finally:
        filesystem.close()
    return "\n".join([*parts, _apt(options, scratch)])


def _set_up(options: Namespace, scratch: Path, top: Path) -> str:
    scope, memory = top / "small", scratch / "memory"
    scope.mkdir()
    memory.mkdir()
    (scope / "file").write_text("x")
    run(BUNDLER, scratch / "snapbreaker")
    own: list[str | Path] = [scratch / "snapbreaker", "--quiet", "--store", top / "store", "run", "--scope", scope]
    sides: dict[str, Sequence[str | Path]] = {
        "true": ["true"],
        "unshare, mount by hand, true": ["unshare", "-m", "sh", "-c", BY_HAND, "sh", scope, memory, "true"],
        "snapbreaker run --backend overlay -- true": [*own, "--backend", "overlay", "--", "true"],
        "snapbreaker run --backend filecopy -- true": [*own, "--backend", "filecopy", "--", "true"],
    }
    if shutil.which("try"):
        sides["try -n true"] = ["try", "-n", "true"]
    samples = {name: Samples() for name in sides}
    for _ in range(options.rounds + 1):
        for name, argv in sides.items():
            samples[name].seconds.append(_took(argv, scope))
    facts = ("one file on ext4", f"{options.rounds} rounds in turn")
    rows = [_row(name, side.seconds[1:]) for name, side in samples.items()]
    return f"{heading('A sandbox for nothing', *facts)}\n{table(HEAD, rows)}\n"


def _took(argv: Sequence[str | Path], directory: Path) -> float:
    env = {**os.environ, "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    started = time.perf_counter()
    done = subprocess.run(argv, env=env, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{argv} ended with {done.returncode}: {done.stderr.strip()}")
    return seconds


def _commit(options: Namespace, scratch: Path, top: Path) -> str:
    """Half of the paths are new, half replace what was there; 4 KiB each."""
    ours, theirs = Samples(), Samples()
    scope = top / "scope"

    def change() -> None:
        for number in range(options.paths):
            path = scope / f"{number % 100}" / f"{number}"
            path.with_suffix(".new").write_bytes(os.urandom(4096))
            path.with_suffix(".new").rename(path)

    for _ in range(options.rounds):
        for samples in (ours, theirs):
            shutil.rmtree(scope, ignore_errors=True)
            for number in range(100):
                (scope / str(number)).mkdir(parents=True)
            for number in range(0, options.paths, 2):
                (scope / f"{number % 100}" / f"{number}").write_bytes(b"before" * 600)
            one = Sandboxed(scope, scratch / "home", Options())
            one.begin()
            one.inside(change)
            settle(scope)
            started = time.perf_counter()
            if samples is ours:
                one.sandbox.leave()
                how = apply(one.made, one.sandbox.uppers)
                assert getattr(how, "changes", None), how
            else:
                upper = f"/proc/{os.getpid()}/fd/{one.sandbox.uppers.any_fd}/"
                run("rsync", "-aHAX", "--filter=-x trusted.overlay.*", upper, f"{scope}/")
                run("sync", "-f", scope)
            samples.seconds.append(time.perf_counter() - started)
            one.close()
            one.discard()
    facts = (f"{options.paths:,} paths of 4 KiB, half of them new, ext4", f"{options.rounds} rounds in turn")
    rows = [
        _row("commit (staged, compared, with an undo set)", ours.seconds),
        _row("rsync -aHAX of the upper", theirs.seconds),
    ]
    return f"{heading('Commit', *facts)}\n{table(HEAD, rows)}\n"


def _apt(options: Namespace, scratch: Path) -> str:
    machine = Machine.create("ext4", scratch)
    inside, outside, whole = Samples(), Samples(), Samples()
    remove = ("apt-get", "purge", "-qqy", "--autoremove", options.package)
    try:
        machine.boot()

        def timed(*argv: str) -> float:
            done = machine.run("python3", "-I", "-c", TIMER, *argv, timeout=300)
            if done.returncode:
                raise SystemExit(f"{' '.join(argv)}: {done.stderr.strip()}")
            return float(json.loads(done.stdout)[0])

        def sync() -> None:
            machine.run("sync")

        for _ in range(options.rounds + 1):
            sync()
            outside.seconds.append(timed(*INSTALL, options.package))
            timed(*remove)
            sync()
            overlay = ("snapbreaker", "--quiet", "run", "--backend", "overlay", "--idle", "0", "--")
            whole.seconds.append(timed(*overlay, *INSTALL, options.package))
            report = json.loads(machine.run("snapbreaker", "report", "--last", "--format", "json").stdout)
            inside.seconds.append(next(one["seconds"] for one in report["timeline"] if one["name"] == "run"))
            timed("snapbreaker", "rollback", "--last", "--yes", "--force")
    finally:
        machine.close()
    rows = [
        _row("apt-get outside", outside.seconds[1:]),
        _row("apt-get in the sandbox", inside.seconds[1:]),
        _row("the whole run, with checkpoint, commit and services", whole.seconds[1:]),
    ]
    facts = (f"apt-get install {options.package}, a booted Debian on ext4", f"{options.rounds} rounds in turn")
    return f"{heading('apt inside and outside', *facts)}\n{table(HEAD, rows)}\n"


if __name__ == "__main__":
    sys.exit("scripts/bench overlay")
