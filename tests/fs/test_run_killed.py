"""SIGKILL at random moments: afterwards the tree is the one before the command, or the committed one."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import comparer
from tests.fs.conftest import MakeFilesystem
from tests.lab import soak
from tests.lab.loopfs import FSTYPES, LoopFilesystem
from tests.lab.tool import Tool, wait_for

KILLS = 6  # on each of three filesystems in an ordinary test run; SNAPBREAKER_SOAK=12: 72
DEPLOY = """
cd "$1"
n=0
while [ $n -lt 20 ]; do n=$((n+1)); rm -f old/$n; echo new >replaced/$n.new; mv replaced/$n.new replaced/$n; done
mkdir -p made/deep; echo x >made/deep/file; ln replaced/1 made/link; mv moved made/moved; echo more >>grown
[ -z "$2" ] || { echo "$2"; sleep 9; }
"""


def seed(root: Path) -> None:
    for name in ("old", "replaced", "moved"):
        (root / name).mkdir(parents=True)
        for number in range(1, 21):
            (root / name / str(number)).write_text(f"{name} {number}\n" * 50)
    (root / "grown").write_text("a line\n")


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def supervisor(pid: int) -> list[int]:
    return [pid]


def worker(pid: int) -> list[int]:
    return children(pid)[:1]


def both(pid: int) -> list[int]:
    return [*worker(pid), pid]


def everyone(pid: int) -> list[int]:
    return [*children(pid), pid]


def settle(tool: Tool) -> None:
    """Whoever survived holds the lock until it has finished; then `recover` has the rest to do, if any."""
    deadline = time.monotonic() + 60
    while (result := tool("recover")).status == 4:
        assert time.monotonic() < deadline, result.stderr
        time.sleep(0.05)
    assert result.status == 0, result.stderr


def newest_state(tool: Tool) -> str:
    """Of the newest record, read without another start of the tool: there are many."""
    record = max(tool.store.glob("[0-9]*-*T*"), key=lambda path: int(path.name.partition("-")[0]))
    return str(json.loads((record / "state.json").read_text())["state"])


def contents(facts: dict[bytes, comparer.Facts]) -> dict[bytes, tuple[str, str, bool]]:
    """What is the same after each run of the same command."""
    return {path: (fact.kind, fact.digest, bool(fact.linked)) for path, fact in facts.items()}


def cut_off(tool: Tool, dice: random.Random, *arguments: str) -> None:
    """A recovery or a rollback, killed as well."""
    process = tool.start(*arguments)
    time.sleep(dice.uniform(0.1, 0.5))
    if process.poll() is None:
        process.kill()
    process.communicate()


@pytest.mark.parametrize("fstype", FSTYPES)
def test_never_a_mixture(make_filesystem: MakeFilesystem, tool: Tool, fstype: str) -> None:
    root = make_filesystem(fstype).path / "scope"
    seed(root)
    before = comparer.snapshot(root)
    dice = soak.dice(20261123)
    assert tool.run(root, "sh", "-c", DEPLOY, "sh", root, "").status == 0
    after = contents(comparer.snapshot(root))
    assert tool("rollback", "--last", "--yes").status == 0
    began = time.monotonic()
    assert tool.run(root, "sh", "-c", DEPLOY, "sh", root, "ERROR: it failed").status == 1
    whole = time.monotonic() - began
    victims: list[Callable[[int], list[int]]] = [supervisor, worker, both, everyone]
    seen = set()
    kills = 0
    while kills < soak.times(KILLS):
        line, chosen = dice.choice(["", "ERROR: it failed"]), dice.choice(victims)
        process = tool.start("run", "--scope", root, "--", "sh", "-c", DEPLOY, "sh", root, line)
        time.sleep(dice.uniform(0.2, 1.0) * whole)
        if process.poll() is None:  # one that had ended before is judged, and does not count
            kills += 1
            for pid in chosen(process.pid):
                os.kill(pid, signal.SIGKILL)
        process.communicate()
        if dice.random() < 0.3:
            cut_off(tool, dice, "recover")
        settle(tool)
        state = newest_state(tool)
        told = f"kill {kills} of {chosen.__name__}, line {line!r}, then {state}"
        seen.add(state)
        if state == "committed":
            assert contents(comparer.snapshot(root)) == after, told
            if dice.random() < 0.3:
                cut_off(tool, dice, "rollback", "--last", "--yes")
                settle(tool)
            if newest_state(tool) == "committed":
                assert tool("rollback", "--last", "--yes").status == 0, told
        assert comparer.differences(before, comparer.snapshot(root)) == [], told
    assert "rolled-back" in seen
    print(f"{kills} kills; then {seen}")


def test_the_whole_process_group(ext4: LoopFilesystem, tool: Tool) -> None:
    """`kill -9 -GROUP` and `timeout -s KILL` reach supervisor and worker; the rollback needs no `recover`."""
    root = ext4.path / "scope"
    seed(root)
    before = comparer.snapshot(root)
    script = f"cd {root} && rm -r old && echo up && exec sleep 60"
    process = tool.start("run", "--scope", root, "--", "sh", "-c", script)
    wait_for(process, "up")
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    while newest_state(tool) != "rolled-back":
        assert time.monotonic() - began < 30
        time.sleep(0.1)
    assert comparer.differences(before, comparer.snapshot(root)) == []
    settle(tool)
