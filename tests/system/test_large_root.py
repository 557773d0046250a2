"""The default, on a machine like most: one ext4 with very many files, and other mounts below it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import debs, disk, loopfs
from tests.lab.debs import Package
from tests.system.conftest import MakeMachine, booted
from tests.system.judge import Judge

APT = ("apt-get", "-qqy", "-o", "Dpkg::Use-Pty=0")
FILES = 150_000


def test_no_options(make_machine: MakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "SIZE", 4 * loopfs.GIB)
    machine = booted(make_machine("ext4"))
    fill(machine.root / "srv/data")
    for directory, options in (("tmp", "size=8m"), ("size", "size=8m")):
        (machine.root / f"mnt/{directory}").mkdir()
        assert machine.run("mount", "-t", "tmpfs", "-o", options, "tmpfs", f"/mnt/{directory}").returncode == 0
    debs.add(machine.root, Package("fails", scripts={"postinst": "echo ERROR: no; sleep 9"}))
    debs.add(machine.root, Package("good"))
    judge = Judge.of(machine)
    result = machine.snapbreaker("run", "--", *APT, "install", "fails")
    assert result.returncode == 1, result.stderr
    print(result.stderr)
    judge.undone()
    result = machine.snapbreaker("run", "--", *APT, "install", "good")
    assert result.returncode == 0, result.stderr
    print(result.stderr)
    assert machine.run("dpkg", "-s", "good").returncode == 0


def fill(top: Path) -> None:
    for number in range(FILES):
        if number % 100 == 0:
            directory = top / f"{number // 10_000}/{number // 100}"
            directory.mkdir(parents=True)
        (directory / f"{number}").write_bytes(b"x" * (number % 3000))
