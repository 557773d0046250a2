"""`rollback --path`: one path and what is below it goes back, all else stays, whatever holds the checkpoint."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import comparer
from tests.lab import subvolumes
from tests.lab.loopfs import LoopFilesystem
from tests.lab.tool import Tool

CHANGE = r"""
cd "$1"
echo after >kept/file; echo after >back/file; chmod 700 back; rm -r back/gone; mkdir back/made; echo x >back/made/x
rm back/link; ln -s elsewhere back/link; rm back/twin; echo alone >back/twin; chown 3:4 back/inner/deep
echo after >"back/odd
name"; mv back/moved kept/moved; [ ! -e back/volume ] || { rm -r back/volume/*; echo after >back/volume/new; }
"""


@pytest.fixture
def root(filesystem: LoopFilesystem) -> Path:
    root = filesystem.path / "app"
    for name in ("kept", "back/gone/deep", "back/inner"):
        (root / name).mkdir(parents=True)
    for name in ("kept/file", "back/file", "back/gone/deep/file", "back/inner/deep", "back/odd\nname"):
        (root / name).write_text("before\n")
    (root / "back/moved").write_text("moved\n")
    os.link(root / "back/file", root / "back/twin")
    (root / "back/link").symlink_to("file")
    if filesystem.fstype == "btrfs":
        subvolumes.create(root / "back/volume")
        (root / "back/volume/file").write_text("before\n")
    return root


def part(facts: dict[bytes, comparer.Facts], name: bytes) -> dict[bytes, comparer.Facts]:
    return {path: fact for path, fact in facts.items() if path == name or path.startswith(name + b"/")}


def expect(root: Path, back: dict[bytes, comparer.Facts], stays: dict[bytes, comparer.Facts]) -> None:
    now = comparer.snapshot(root)
    assert comparer.differences(part(back, b"back"), part(now, b"back")) == []
    assert comparer.differences(part(stays, b"kept"), part(now, b"kept")) == []


@pytest.mark.parametrize("kind", ["manual", "committed", "halted"])
def test_one_path_goes_back(tool: Tool, root: Path, kind: str, filesystem: LoopFilesystem) -> None:
    before = comparer.snapshot(root)
    if kind == "manual":
        assert tool("checkpoint", "create", "--scope", root).status == 0
    elif kind == "halted":
        halted = tool.run(root, "sh", "-c", f"rm -r {root}/back/inner; echo 'ERROR: no'; sleep 9")
        assert halted.status == 1, halted.stderr
    if kind == "committed":
        done = tool.run(root, "sh", "-c", CHANGE, "sh", root)
        assert done.status == 0, done.stderr
    else:
        subprocess.run(["sh", "-c", CHANGE, "sh", root], check=True)
    after = comparer.snapshot(root)
    if kind == "halted" and filesystem.fstype == "ext4":
        # Hard links are let go when the rollback was verified, and that is said.
        refused = tool("rollback", "--last", "--yes", "--path", root / "back")
        assert refused.status == 4, refused.stderr
        assert b"only what it changed is kept" in refused.stderr
        assert comparer.differences(after, comparer.snapshot(root)) == []
        return

    shown = tool("rollback", "--last", "--dry-run", "--path", root / "back")
    assert shown.status == 0, shown.stderr
    assert b"kept" not in shown.stdout
    assert b"back/file" in shown.stdout
    assert comparer.differences(after, comparer.snapshot(root)) == []

    # One file of a group of hard links, then the rest; a path in it that was named twice is one.
    one = tool("rollback", "--last", "--yes", "--path", root / "back/inner/deep")
    assert one.status == 0, one.stderr
    assert (root / "back/inner/deep").stat().st_uid == 0
    rest = tool("rollback", "--last", "--yes", "--path", root / "back", "--path", "back/made", cwd=root)
    assert rest.status == 0, rest.stderr
    expect(root, before, after)

    whole = tool("rollback", "--last", "--yes")
    if kind == "halted":
        assert whole.status == 4, whole.stderr
    else:
        assert whole.status == 0, whole.stderr
        assert comparer.differences(before, comparer.snapshot(root)) == []


def test_a_path_that_is_gone_on_both_sides(tool: Tool, root: Path) -> None:
    assert tool("checkpoint", "create", "--scope", root).status == 0
    before = comparer.snapshot(root)
    assert tool("rollback", "--last", "--yes", "--path", root / "never/was").status == 0
    assert tool("rollback", "--last", "--yes", "--path", root.parent).status == 2
    assert comparer.differences(before, comparer.snapshot(root)) == []
