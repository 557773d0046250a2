"""The links of a vault are gone when a run is over, also of files that nobody can unlink just like that."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import comparer
from tests.lab import inodes
from tests.lab.loopfs import LoopFilesystem
from tests.lab.tool import Tool


@pytest.fixture
def root(ext4: LoopFilesystem) -> Path:
    path = ext4.path / "scope"
    path.mkdir()
    for name in "abc":
        (path / name).write_text(name * 1000)
    return path


@pytest.mark.parametrize("flag", ["i", "a"])
def test_a_file_that_was_locked_by_the_run_stays_so(tool: Tool, root: Path, flag: str) -> None:
    script = f"cd {root}; chattr +{flag} a; mkdir d; mv b d; chattr +{flag} d/b"
    assert tool.run(root, "sh", "-c", script).status == 0
    assert _links(root) == []
    locked = inodes.flags(root / "a") & (inodes.IMMUTABLE | inodes.APPEND)
    assert locked == {"i": inodes.IMMUTABLE, "a": inodes.APPEND}[flag]
    assert (root / "a").stat().st_nlink == 1
    inodes.remove_flags(root / "a", locked)
    inodes.remove_flags(root / "d/b", locked)


def test_what_a_rollback_displaced_is_locked(tool: Tool, root: Path) -> None:
    before = comparer.snapshot(root)
    assert tool.run(root, "sh", "-c", f"cd {root}; mkdir d; mv b d; chattr +i d/b a d; false").status == 1
    assert _links(root) == []
    assert comparer.differences(before, comparer.snapshot(root)) == []


def test_an_active_swap_file_keeps_only_its_own(tool: Tool, root: Path) -> None:
    swap = root / "swap"
    swap.write_bytes(bytes(1 << 20))
    swap.chmod(0o600)
    subprocess.run(["mkswap", str(swap)], check=True, stdout=subprocess.DEVNULL)
    try:
        assert tool.run(root, "swapon", swap).status == 0
        assert len(_links(root)) == 1
    finally:
        subprocess.run(["swapoff", str(swap)], check=True)
    assert tool("checkpoint", "delete", tool.checkpoints()[-1]["id"]).status == 0
    assert _links(root) == []


def _links(root: Path) -> list[Path]:
    """Files in the vaults, and their directory where it is empty."""
    found = list(root.parent.glob(".snapbreaker/*/*/links/*/*"))
    return found or list(root.parent.glob(".snapbreaker/*/*/links"))
