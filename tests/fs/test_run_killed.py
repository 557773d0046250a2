"""SIGKILL at random moments: afterwards the tree is the one before the command, or the committed one."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import comparer
from tests.fs.conftest import MakeFilesystem
from tests.fs.guarded import processes
from tests.fs.processes import children, kill_all
from tests.fs.processes import wait_for as wait_until
from tests.lab import soak
from tests.lab.loopfs import FSTYPES, LoopFilesystem
from tests.lab.tool import Result, Tool, wait_for

KILLS = 4  # on each of three filesystems in an ordinary test run; SNAPBREAKER_SOAK=18: 72
DEPLOY = """
cd "$1"
n=0
while [ $n -lt 20 ]; do n=$((n+1)); rm -f old/$n; echo new >replaced/$n.new; mv replaced/$n.new replaced/$n; done
mkdir -p made/deep; echo x >made/deep/file; ln replaced/1 made/link; mv moved made/moved; echo more >>grown
chmod 600 replaced/2; touch -d @1 replaced/3
$SAVE
[ -z "$2" ] || { echo "$2"; sleep 9; }
"""


def seed(root: Path) -> dict[bytes, comparer.Facts]:
    """The tree before; what is there goes."""
    if root.exists():
        shutil.rmtree(root)
    for name in ("old", "replaced", "moved"):
        (root / name).mkdir(parents=True)
        for number in range(1, 21):
            (root / name / str(number)).write_text(f"{name} {number}\n" * 50)
    (root / "grown").write_text("a line\n")
    return comparer.snapshot(root)


def supervisor(pid: int) -> list[int]:
    return [pid]


def worker(pid: int) -> list[int]:
    return children(pid)[:1]


def both(pid: int) -> list[int]:
    return [*worker(pid), pid]


def everyone(pid: int) -> list[int]:
    """Who could finish the run. The guard and the command go on."""
    return [*children(pid), pid]


def everything(pid: int) -> list[int]:
    """The guard, those that help and watch, and the command as well."""
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    found = list(processes(next(one for one in environment if one.startswith(b"SNAPBREAKER_STORE="))))
    random.shuffle(found)
    return found


def settle(tool: Tool) -> Result:
    """Whoever survived holds the lock until it has finished; then `recover` has the rest to do, if any."""
    deadline = time.monotonic() + 60
    while (result := tool("recover")).status == 4:
        assert time.monotonic() < deadline, result.stderr
        time.sleep(0.05)
    return result


def newest_state(tool: Tool) -> str:
    """Of the newest record, read without another start of the tool: there are many."""
    record = max(tool.store.glob("[0-9]*-*T*"), key=lambda path: int(path.name.partition("-")[0]))
    return str(json.loads((record / "state.json").read_text())["state"])


class Deployment:
    """Runs of the same command on the same tree, each killed at some moment and judged."""

    def __init__(self, tool: Tool, root: Path, dice: random.Random, *options: str) -> None:
        self.tool, self.root, self.dice, self.options = tool, root, dice, options
        self.before = seed(root)
        self.saved = tool.home / "after"
        self.env = {"SAVE": f"{sys.executable} {comparer.__file__} save . {self.saved}"}
        self.seen: set[str] = set()
        began = time.monotonic()
        tripped = tool.run(root, *self._command("ERROR: it failed"), options=options, env=self.env)
        assert tripped.status == 1
        self.seconds = time.monotonic() - began

    def _command(self, line: str) -> list[str]:
        return ["sh", "-c", DEPLOY, "sh", str(self.root), line]

    def killed(self, line: str, chosen: Callable[[int], list[int]]) -> bool:
        """Whether it was still at work at a moment between its first and its last."""
        arguments: list[str | Path] = ["run", *self.options, "--scope", self.root, "--", *self._command(line)]
        process = self.tool.start(*arguments, env=self.env)
        time.sleep(self.dice.uniform(0.2, 1.0) * self.seconds)
        at_work = process.poll() is None
        if at_work:
            kill_all(chosen(process.pid))
        process.communicate()
        return at_work

    def cut_off(self, *arguments: str) -> None:
        """A recovery or a rollback, killed as well with all that it has started."""
        process = self.tool.start(*arguments)
        time.sleep(self.dice.uniform(0.1, 0.5))
        if process.poll() is None:
            kill_all(everything(process.pid))
        process.communicate()

    def judge(self, told: str, unguarded: bool) -> None:
        """``unguarded``: nobody knows what was changed in place last, and what that may have been is named."""
        result = settle(self.tool)
        state = newest_state(self.tool)
        self.seen.add(state)
        told = f"{told}, then {state}"
        if result.status == 3:
            assert unguarded, (told, result.stderr)
            assert state == "failed", told
            self.is_before_or_named(told, result)
            self.before = seed(self.root)
            return
        assert result.status == 0, (told, result.stderr)
        if state == "committed":
            self.is_after(told)
            self.roll_back(told)
        assert comparer.differences(self.before, comparer.snapshot(self.root)) == [], told

    def roll_back(self, told: str) -> None:
        if self.dice.random() < 0.3:
            self.cut_off("rollback", "--last", "--yes")
            assert settle(self.tool).status == 0, told
        if newest_state(self.tool) == "committed":
            assert self.tool("rollback", "--last", "--yes").status == 0, told

    def is_after(self, told: str) -> None:
        """As the command itself saw it at its end."""
        after = {path: comparer.Facts(*facts) for path, facts in pickle.loads(self.saved.read_bytes()).items()}
        assert comparer.differences(after, comparer.snapshot(self.root)) == [], told

    def is_before_or_named(self, told: str, result: Result) -> None:
        now = comparer.snapshot(self.root)
        differing = {path for path in self.before.keys() | now.keys() if self.before.get(path) != now.get(path)}
        said = result.stdout + result.stderr
        report = json.dumps(self.tool.report()).encode()
        assert [path for path in differing if os.fsencode(self.root / os.fsdecode(path)) not in report] == [], told
        assert b"lost" in report, (told, said)


@pytest.mark.parametrize("fstype", FSTYPES)
def test_never_a_mixture(make_filesystem: MakeFilesystem, tool: Tool, fstype: str) -> None:
    dice = soak.dice(20261123)
    deployment = Deployment(tool, make_filesystem(fstype).path / "scope", dice)
    kills = 0
    while kills < soak.times(KILLS):
        line = dice.choice(["", "ERROR: it failed"])
        chosen = dice.choice([supervisor, worker, both, everyone, everything, everything])
        told = f"after {kills} kills, {chosen.__name__}, line {line!r}"
        kills += deployment.killed(line, chosen)  # one that had ended before is judged, and does not count
        cut_off = dice.random() < 0.3
        if cut_off:
            deployment.cut_off("recover")
        deployment.judge(told, fstype == "ext4" and (chosen is everything or cut_off))
    assert "rolled-back" in deployment.seen
    print(f"{kills} kills; then {deployment.seen}")


def test_in_a_sandbox(ext4: LoopFilesystem, tool: Tool) -> None:
    """Before, while and after its change is applied."""
    deployment = Deployment(tool, ext4.path / "scope", soak.dice(20261125), "--backend", "overlay")
    kills = 0
    while kills < soak.times(KILLS):
        chosen = deployment.dice.choice([supervisor, worker, both, everyone, everything])
        kills += deployment.killed("", chosen)
        if deployment.dice.random() < 0.3:
            deployment.cut_off("recover")
        deployment.judge(f"after {kills} kills, {chosen.__name__}", False)


def test_held_in_a_sandbox(ext4: LoopFilesystem, tool: Tool) -> None:
    """Whoever holds it is noted, or is gone; nothing has come to the machine."""
    deployment = Deployment(tool, ext4.path / "scope", soak.dice(20261126), "--backend", "overlay", "--hold")
    kills = 0
    while kills < soak.times(KILLS):
        chosen = deployment.dice.choice([supervisor, worker, both, everyone])
        kills += deployment.killed("", chosen)
        told = f"after {kills} kills, {chosen.__name__}"
        assert settle(tool).status == 0, told
        assert comparer.differences(deployment.before, comparer.snapshot(deployment.root)) == [], told
        if newest_state(tool) == "held":
            assert tool("rollback", "--last", "--yes").status == 0, told
        environment = f"SNAPBREAKER_STORE={tool.store}".encode()
        wait_until(lambda: not list(processes(environment)))  # noqa: B023


def test_the_whole_process_group(ext4: LoopFilesystem, tool: Tool) -> None:
    """`kill -9 -GROUP` and `timeout -s KILL` reach supervisor and worker; the rollback needs no `recover`."""
    root = ext4.path / "scope"
    before = seed(root)
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
    assert settle(tool).status == 0
