"""Databases under write load inside the scope: every checkpoint of them is of one instant."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.lab.databases import Redis, Sqlite
from tests.lab.loopfs import LoopFilesystem
from tests.lab.tool import Tool

CHECKPOINTS = {"ext4": 8, "xfs": 6, "btrfs": 6}  # 20 of each database


@pytest.mark.parametrize("kind", [Sqlite, Redis])
def test_checkpoints_under_load(tool: Tool, filesystem: LoopFilesystem, kind: type[Sqlite] | type[Redis]) -> None:
    if kind is Redis and not shutil.which("redis-server"):
        pytest.skip("redis-server is missing: apt-get install redis-server")
    directory = filesystem.path / "root/data"
    directory.mkdir(parents=True)
    _litter(filesystem.path / "root")
    base = kind(directory)
    made = []
    with base:
        for _ in range(CHECKPOINTS[filesystem.fstype]):
            result = tool("checkpoint", "create", "--scope", filesystem.path / "root")
            assert result.status == 0, result.stderr
            made.append(result.stdout.decode().strip())
    counts = [base.count()]
    for id in reversed(made):
        back = tool("rollback", id, "--yes")
        assert back.status == 0, back.stderr
        counts.append(base.count())
    assert counts == sorted(counts, reverse=True), "a later checkpoint holds less than an earlier one"
    assert counts[-1] > 0
    assert counts[0] > counts[-1]


def _litter(root: Path) -> None:
    """Something beside the database that a checkpoint has to spend time on."""
    for number in range(300):
        (root / f"file-{number}").write_bytes(bytes([number % 256]) * 5000)
