"""The deploy that does everything wrong, behind the breaker, on every filesystem."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import comparer
from tests.fs.conftest import MakeFilesystem
from tests.lab import hostile
from tests.lab.loopfs import LoopFilesystem
from tests.lab.tool import Tool

HOSTILE = (sys.executable, "-m", "tests.lab.hostile")


def test_halted_killed_and_put_back(tool: Tool, filesystem: LoopFilesystem, tmp_path: Path) -> None:
    root, pids = filesystem.path / "root", tmp_path / "pids"
    hostile.seed(root)
    before = comparer.snapshot(filesystem.path)
    result = tool.run(root, *HOSTILE, "deploy", root, pids)
    assert result.status == 1, result.stderr
    assert len(pids.read_text().splitlines()) == 2
    assert hostile.processes(pids) == []
    assert comparer.differences(before, comparer.snapshot(filesystem.path)) == []
    issue = tool.report()["issue"]
    assert (issue["type"], issue["line"], issue["source"]) == ("ERROR", hostile.ERROR_LINE, "stdout")
    assert issue["line_number"] == 2
    time.sleep(0.05)
    assert comparer.differences(before, comparer.snapshot(filesystem.path)) == []
    assert hostile.ERROR_LINE.encode() in result.stdout


def test_undone_after_commit(tool: Tool, filesystem: LoopFilesystem) -> None:
    root = filesystem.path / "root"
    hostile.seed(root)
    before = comparer.snapshot(filesystem.path)
    result = tool.run(root, *HOSTILE, "mutate", root)
    assert result.status == 0, result.stderr
    after = comparer.snapshot(filesystem.path)
    assert comparer.differences(before, after)
    back = tool("rollback", "--last", "--yes")
    assert back.status == 0, back.stderr
    assert comparer.differences(before, comparer.snapshot(filesystem.path)) == []


def test_the_run_changes_nothing_by_itself(tool: Tool, filesystem: LoopFilesystem) -> None:
    """What the deploy did is there as it did it: neither checkpoint nor commit touches the tree."""
    roots = filesystem.path / "guarded", filesystem.path / "bare/again"
    roots[1].parent.mkdir()
    for root in roots:
        hostile.seed(root)
    assert tool.run(roots[0], *HOSTILE, "mutate", roots[0]).status == 0
    subprocess.run([*HOSTILE, "mutate", roots[1]], check=True, cwd=Path(__file__).parents[2])
    guarded, bare = (comparer.snapshot(root) for root in roots)
    timeless = [{path: facts._replace(mtime_ns=0) for path, facts in tree.items()} for tree in (guarded, bare)]
    assert [line for line in comparer.differences(*timeless) if ": target" not in line] == []


def test_the_top_of_a_filesystem_as_scope(tool: Tool, filesystem: LoopFilesystem, tmp_path: Path) -> None:
    hostile.seed(filesystem.path / "root")
    before = comparer.snapshot(filesystem.path)
    result = tool.run(filesystem.path, *HOSTILE, "deploy", filesystem.path / "root", tmp_path / "pids")
    assert result.status == 1, result.stderr
    assert hostile.processes(tmp_path / "pids") == []
    assert comparer.differences(before, comparer.snapshot(filesystem.path)) == []


def test_complete_copies_on_btrfs(tool: Tool, btrfs: LoopFilesystem, tmp_path: Path) -> None:
    root = btrfs.path / "root"
    hostile.seed(root)
    before = comparer.snapshot(btrfs.path)
    result = tool.run(root, *HOSTILE, "deploy", root, tmp_path / "pids", options=["--backend", "filecopy"])
    assert result.status == 1, result.stderr
    assert comparer.differences(before, comparer.snapshot(btrfs.path)) == []


@pytest.mark.parametrize("outer", ["ext4", "btrfs"])
def test_two_filesystems_in_one_scope(
    tool: Tool, make_filesystem: MakeFilesystem, tmp_path: Path, outer: str
) -> None:
    """One checkpoint of two volumes of different backends."""
    top, inner = make_filesystem(outer), make_filesystem("btrfs" if outer == "ext4" else "xfs")
    root = top.path / "root"
    hostile.seed(root)
    (root / "mounted").mkdir()
    hostile.seed(inner.path / "root")
    subprocess.run(["mount", "--bind", inner.path, root / "mounted"], check=True)
    before = comparer.snapshot(top.path), comparer.snapshot(inner.path)
    call = " ".join(HOSTILE)
    script = f"{call} mutate {root / 'mounted/root'} && exec {call} deploy {root} {tmp_path / 'pids'}"
    result = tool.run(root, "sh", "-c", script)
    assert result.status == 1, result.stderr
    assert hostile.processes(tmp_path / "pids") == []
    after = comparer.snapshot(top.path), comparer.snapshot(inner.path)
    assert comparer.differences(before[0], after[0]) == []
    assert comparer.differences(before[1], after[1]) == []
    assert len(tool.record()["volumes"]) == 2


def test_a_hard_link_that_leaves_the_scope_is_told(tool: Tool, filesystem: LoopFilesystem) -> None:
    """What the command wrote through the name in scope is in the file outside too: that is no exact rollback."""
    root, outside = filesystem.path / "scope", filesystem.path / "outside"
    root.mkdir()
    (root / "inside").write_text("one\n")
    (root / "calm").write_text("not touched\n")
    outside.hardlink_to(root / "inside")
    (filesystem.path / "other").hardlink_to(root / "calm")
    result = tool.run(root, "sh", "-c", f"echo two >>{root}/inside; echo ERROR: no")
    assert result.status == 3, result.stderr
    assert (root / "inside").read_text() == "one\n"
    (difference,) = tool.report()["differences"]
    assert difference["path"] == str(root / "inside")
    assert "1 hard links instead of 2" in difference["text"]


@pytest.mark.parametrize("seconds", [-(2**31) + 1, 9_300_000_000, 15_032_385_000])
def test_times_before_1902_and_after_2262(tool: Tool, filesystem: LoopFilesystem, seconds: int) -> None:
    """64 bits of nanoseconds end in 2262; ext4's times in 2446."""
    root = filesystem.path / "scope"
    (root / "directory").mkdir(parents=True)
    for name in ("changed", "removed", "touched", "directory"):
        if name != "directory":
            (root / name).write_text(name)
        os.utime(root / name, (seconds, seconds))
    before = comparer.snapshot(root)
    script = (
        f"cd {root}; touch -d @{seconds} new; echo more >> changed; rm removed; touch touched; mv directory other"
    )
    assert tool.run(root, "sh", "-c", f"{script}; false").status == 1
    assert comparer.differences(before, comparer.snapshot(root)) == []
    assert tool.run(root, "sh", "-c", script).status == 0
    after = comparer.snapshot(root)
    assert tool("rollback", "--last", "--yes").status == 0
    assert comparer.differences(before, comparer.snapshot(root)) == []
    assert tool("rollback", "--last", "--redo", "--yes").status == 0
    assert comparer.differences(after, comparer.snapshot(root)) == []
