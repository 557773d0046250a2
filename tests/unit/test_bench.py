"""The benches' own logic: the tree that they work on, and what they say about what they measured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import comparer
from tests.bench import tree
from tests.bench.measure import Samples, Took, compared
from tests.bench.peaks import Peaks
from tests.bench.processes import Used, below, used

BURN = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
FILL = "filled = b'x' * (60 << 20)\nprint(flush=True)\ninput()\ndel filled\nprint(flush=True)\ninput()"


def facts(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Of each path what does not differ between two filesystems."""
    found = {}
    for directory, directories, names in os.walk(root):
        for name in (*directories, *names):
            path = Path(directory, name)
            status = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path.relative_to(root))] = (status.st_mode, status.st_nlink, status.st_mtime_ns, content)
    return found


def test_sizes_depend_on_nothing_but_the_numbers() -> None:
    assert sum(map(tree.size_of, range(10_000))) == 315_897_261
    assert max(map(tree.size_of, range(10_000))) <= tree.LARGEST


@pytest.mark.skipif(os.geteuid() != 0, reason="chown(2) needs root")
def test_two_trees_are_the_same_and_change_in_the_same_way(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for root in (one, other):
        tree.make(root, 400)
    before = facts(one)
    assert before == facts(other)
    assert len([path for path in before if "/f" in path]) == 400
    assert sum(len(content) for *_, content in before.values()) >= sum(map(tree.size_of, range(400)))
    compare = comparer.snapshot(one)
    tree.change(one, 400, 100)
    changed = {
        line.partition(": ")[0] for line in comparer.differences(compare, comparer.snapshot(one)) if "/f" in line
    }
    assert 80 <= len(changed) <= 130  # a second name of a changed file is one more, a new file is not counted


def test_empty_tree(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("chown(2) needs root")
    tree.make(tmp_path / "tree", 100, empty=True)
    assert {len(content) for *_, content in facts(tmp_path / "tree").values()} == {0}


def test_the_first_side_is_told_as_a_part_of_each() -> None:
    sides = {"ours": Samples(), "theirs": Samples(notes=["12 MB"])}
    for seconds in (1.0, 3.0, 2.0):
        sides["ours"].add(Took(seconds, Used(0.5, 0.8)))
        sides["theirs"].add(Took(seconds * 4, Used(0.5, 0.0)))
    lines = compared(sides, ["space"], {"theirs": 0.3}).splitlines()
    assert "| ours | 2.00 | 1.00 to 3.00 | 1.00 | 0.50 | 0.80 | 2.50 |" in lines
    assert "| theirs | 8.00 | 4.00 to 12.00 | 0.25 (goal: 0.3) | 0.50 | 0.00 |  | 12 MB |" in lines


@pytest.mark.real_commands
def test_processor_time_of_the_living_and_of_the_dead() -> None:
    before = used()
    with subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        assert child.pid in below()
        assert child.pid not in below(besides={child.pid})
        living = used().since(before)
        child.communicate(b"\n")
    for took in (living, used().since(before)):
        assert 0.2 < took.user + took.system < 2


@pytest.mark.real_commands
def test_peaks_belong_to_their_phase() -> None:
    with (
        Peaks() as peaks,
        subprocess.Popen([sys.executable, "-c", FILL], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child,
    ):
        assert child.stdin
        assert child.stdout
        peaks.begin("full")
        child.stdout.readline()
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        peaks.begin("freed")
        peaks.begin("")
        child.communicate(b"\n")
    found = {phase: one for phase, one, _ in peaks.found()}
    assert found["full"] > 60 << 20 > found["freed"] > 1 << 20
