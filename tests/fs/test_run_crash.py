"""The tool itself dies or fails: whatever the moment, the tree is as before the command, or as committed."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import comparer
from tests.lab.loopfs import LoopFilesystem

KILLS = 34  # on each of three filesystems
DEPLOY = """
set -e
cd "$1"
n=0
while [ $n -lt 20 ]; do n=$((n+1)); rm -f old/$n; echo new >replaced/$n.new; mv replaced/$n.new replaced/$n; done
mkdir -p made/deep; echo x >made/deep/file; ln replaced/1 made/link; mv moved made/moved; echo more >>grown
[ -z "$2" ] || { echo "$2"; sleep 9; }
"""
# Fails on purpose when a checkpoint enters one state: in the worker only, or in whoever gets there.
INJECT = """
import os, sys
from snapbreaker.checkpoint.record import Record
from snapbreaker.checkpoint.states import State
state, once, flag = State(sys.argv[1]), sys.argv[2] == "once", sys.argv[3]
sys.argv[1:] = sys.argv[4:]
enter = Record.enter
def failing(self, new, **facts):
    if new is state and not (once and os.path.exists(flag)):
        open(flag, "w").close()
        raise RuntimeError("injected at " + state)
    enter(self, new, **facts)
Record.enter = failing
from snapbreaker.cli.main import launch
launch()
"""


class Ground:
    """A seeded tree, a store, and the tool on them."""

    def __init__(self, filesystem: LoopFilesystem, tmp_path: Path) -> None:
        self.root = filesystem.path / "scope"
        self.store = tmp_path / "store"
        self.environment = {
            **os.environ,
            "SNAPBREAKER_STORE": str(self.store),
            "SNAPBREAKER_RUNTIME": str(tmp_path),
        }
        for name in ("old", "replaced", "moved"):
            (self.root / name).mkdir(parents=True)
            for number in range(1, 21):
                (self.root / name / str(number)).write_text(f"{name} {number}\n" * 50)
        (self.root / "grown").write_text("a line\n")
        self.before = self.look()

    def look(self) -> dict[bytes, comparer.Facts]:
        return comparer.snapshot(os.fsencode(self.root))

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snapbreaker", *arguments]

    def deploy(self, line: str) -> list[str]:
        return ["run", "--scope", str(self.root), "--", "sh", "-c", DEPLOY, "sh", str(self.root), line]

    def tool(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*arguments), env=self.environment, capture_output=True, text=True, timeout=60
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.argv(*arguments),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def states(self) -> list[str]:
        listed = self.tool("checkpoint", "list", "--json").stdout.splitlines()
        return [json.loads(line)["state"] for line in listed]

    def settle(self) -> None:
        """Wait until whoever survived has finished, then recover."""
        for _ in range(400):
            result = self.tool("recover")
            if result.returncode != 4:
                break
            time.sleep(0.05)
        assert result.returncode == 0, result.stderr


@pytest.fixture
def ground(filesystem: LoopFilesystem, tmp_path: Path) -> Ground:
    return Ground(filesystem, tmp_path)


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def kill_supervisor(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def kill_worker(pid: int) -> None:
    for child in children(pid):
        os.kill(child, signal.SIGKILL)


def kill_both(pid: int) -> None:
    for victim in [*children(pid), pid]:
        os.kill(victim, signal.SIGKILL)


def test_sigkill_at_random_moments_never_leaves_a_mixture(ground: Ground) -> None:
    dice = random.Random(20261123)
    started = time.monotonic()
    assert ground.tool(*ground.deploy("ERROR: it failed")).returncode == 1
    whole = time.monotonic() - started
    killers: list[Callable[[int], None]] = [kill_supervisor, kill_worker, kill_both]
    for number in range(KILLS):
        line = dice.choice(["", "ERROR: it failed"])
        process = ground.start(*ground.deploy(line))
        time.sleep(dice.uniform(0.3, 1.0) * whole)
        killer = dice.choice(killers)
        if process.poll() is None:
            killer(process.pid)
        process.wait(timeout=60)
        ground.settle()
        told = f"kill {number} by {killer.__name__}, line {line!r}, states {ground.states()[-2:]}"
        if ground.states()[-1:] == ["committed"]:
            assert (ground.root / "made/deep/file").exists(), told
            assert ground.tool("rollback", "--last").returncode == 0, told
        assert comparer.differences(ground.before, ground.look()) == [], told


@pytest.mark.parametrize("once", ["once", "always"])
@pytest.mark.parametrize(
    ("state", "line"),
    [
        ("ready", "ERROR: it failed"),
        ("running", "ERROR: it failed"),
        ("tripped", "ERROR: it failed"),
        ("restoring", "ERROR: it failed"),
        ("verifying", "ERROR: it failed"),
        ("rolled-back", "ERROR: it failed"),
        ("checking", ""),
        ("committed", ""),
    ],
)
def test_an_exception_in_any_state_never_ends_as_a_verified_rollback_unless_it_is_one(
    ext4: LoopFilesystem, tmp_path: Path, state: str, line: str, once: str
) -> None:
    ground = Ground(ext4, tmp_path)
    argv = [sys.executable, "-c", INJECT, state, once, str(tmp_path / "flag"), *ground.deploy(line)]
    result = subprocess.run(argv, env=ground.environment, capture_output=True, text=True, timeout=60)
    assert (tmp_path / "flag").exists(), result.stderr
    if result.returncode == 1:
        assert ground.states() == ["rolled-back"], result.stderr
        assert comparer.differences(ground.before, ground.look()) == []
    else:
        assert result.returncode in (3, 4, 70), result.stderr
        assert "Rollback completed" not in result.stderr
    ground.settle()
    if ground.states()[-1:] == ["committed"]:
        assert ground.tool("rollback", "--last").returncode == 0
    assert comparer.differences(ground.before, ground.look()) == []


def test_the_command_is_dead_within_100_ms_of_our_death(ext4: LoopFilesystem, tmp_path: Path) -> None:
    ground = Ground(ext4, tmp_path)
    mark = tmp_path / "pid"
    for killer in (kill_supervisor, kill_worker):
        mark.unlink(missing_ok=True)
        script = f'trap "" TERM INT HUP; echo $$ >{mark}.new; mv {mark}.new {mark}; while :; do :; done'
        process = ground.start("run", "--idle", "0", "--scope", str(ground.root), "--", "sh", "-c", script)
        while not mark.exists():
            time.sleep(0.01)
        victim = os.pidfd_open(int(mark.read_text()))
        killer(process.pid)
        started = time.monotonic()
        with os.fdopen(victim, "rb") as file:
            poller = select.poll()
            poller.register(file, select.POLLIN)
            assert poller.poll(5000), "the command is still alive"
        assert time.monotonic() - started < 0.1
        process.wait(timeout=60)
        ground.settle()
        assert comparer.differences(ground.before, ground.look()) == []
