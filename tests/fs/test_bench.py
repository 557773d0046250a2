"""The benches run: what they measure is another matter."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.lab import debian
from tests.lab.tool import REPOSITORY

SMALL = {
    "checkpoint": ["--on", "ext4", "--files", "300", "--rounds", "1"],
    "rollback": ["--on", "ext4", "--files", "600", "--paths", "100", "--rounds", "1"],
    "memory": ["--files", "600", "--paths", "100"],
    "guard": ["--packages", "sqlite3", "--rounds", "1"],
}


@pytest.mark.parametrize("bench", SMALL)
def test_bench_prints_its_table(bench: str) -> None:
    if bench == "guard" and (reason := debian.missing()):
        pytest.skip(reason)
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", bench, *SMALL[bench]],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'backends'}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) >= 4, done.stdout
    if bench == "rollback":
        assert all(row.split("|")[-3].strip() == "0" for row in rows[2:]), "a side left paths different"
