"""A filesystem whose file times are whole seconds: ext4 with small inodes, as once made for every small /boot."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests import comparer
from tests.fs.conftest import MakeFilesystem
from tests.lab import loopfs
from tests.lab.tool import Tool


@pytest.fixture
def root(make_filesystem: MakeFilesystem, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(loopfs.MKFS, "ext4", ["mkfs.ext4", "-q", "-F", "-I", "128"])
    monkeypatch.setattr(loopfs, "ext4_projects", lambda session: False)
    path = make_filesystem("ext4", size=64 << 20).path / "scope"
    path.mkdir()
    return path


@pytest.mark.parametrize("trial", range(3))
def test_a_change_within_the_second_of_the_checkpoint_is_seen(tool: Tool, root: Path, trial: int) -> None:
    for number in range(20):
        (root / f"{number}").write_text("before")
    time.sleep(1.6 + 0.2 * trial - time.time() % 1)  # the record is made at the beginning of a second, about
    before = comparer.snapshot(root)
    then = (root / "0").stat().st_mtime_ns // 10**9
    script = f"cd {root}; chattr +d 1*; for i in [2-9]; do printf 'after!' > $i; touch -m -d @{then} $i; done"
    assert tool.run(root, "sh", "-c", f"{script}; false").status == 1
    assert comparer.differences(before, comparer.snapshot(root)) == []


def test_a_tree_in_memory_is_put_back(tool: Tool, lab: Path) -> None:
    """There nothing is ever proven either."""
    top = lab / "memory"
    top.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "memory", top], check=True)
    try:
        (top / "scope").mkdir()
        (top / "scope/a").write_text("before")
        before = comparer.snapshot(top / "scope")
        assert tool.run(top / "scope", "sh", "-c", f"echo after > {top}/scope/a; false").status == 1
        assert comparer.differences(before, comparer.snapshot(top / "scope")) == []
    finally:
        subprocess.run(["umount", top], check=True)
        top.rmdir()
