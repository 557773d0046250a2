"""Recording by hard links in several processes: what changes meanwhile, anywhere, is recorded as it is then."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snapbreaker.backend import Creation, Stored
from snapbreaker.errors import CheckpointError
from snapbreaker.files import bounds, manifest_writer
from snapbreaker.files.live import LiveTree
from snapbreaker.guard.guards import Guards
from snapbreaker.linux.inode import link_fd
from snapbreaker.volumes import discover
from snapbreaker_backends.filecopy import FilecopyBackend, links
from tests.fs.conftest import MakeFilesystem

BACKEND = FilecopyBackend()
DIRECTORIES, FILES = 40, 12


@pytest.fixture
def guards() -> Iterator[Guards]:
    guards = Guards(lambda pid: None)
    yield guards
    guards.close()


@pytest.fixture(autouse=True)
def in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_SMALL", 0)
    monkeypatch.setattr("snapbreaker.files.walk._WORTH_KNOWING", 1)
    monkeypatch.setattr("snapbreaker_backends.filecopy.linking.how_many", lambda: 3)
    monkeypatch.setattr(manifest_writer, "RECORDS_PER_BLOCK", 16)
    monkeypatch.setattr("snapbreaker_backends.filecopy.again.RECORDS_PER_BLOCK", 16)


@pytest.fixture
def root(make_filesystem: MakeFilesystem) -> Path:
    root = make_filesystem("ext4").path / "scope"
    for directory in range(DIRECTORIES):
        (root / f"d{directory:02}").mkdir(parents=True)
        for file in range(FILES):
            (root / f"d{directory:02}" / f"f{file:02}").write_text(f"{directory} {file}")
    os.link(root / "d00/f00", root / "d39/other")
    os.symlink("f01", root / "d05/link")
    return root


def create(root: Path, records: Path, guards: Guards) -> Stored:
    scope = discover([str(root)], [], [], [])
    volume, policy = scope.volumes[0], scope.policies[0]
    vault = Path(volume.vault_base) / "7-test" / "1"
    vault.mkdir(parents=True)
    data = BACKEND.create(volume, Creation("7-test", str(vault), str(records), policy, guards=guards))
    assert data["linked"]
    return Stored(volume, str(vault), str(records), policy, data)


def assert_recorded(stored: Stored) -> None:
    borrowed = BACKEND.borrowed(stored)
    with (
        BACKEND.open(stored) as old,
        LiveTree(stored.volume.root, stored.policy, borrowed=borrowed) as live,
    ):
        expected = list(live.walk())
        assert list(old.walk()) == expected
        for entry in expected:
            assert old.details(entry) == live.details(entry)
            if entry.is_file:
                then, now = old.content(entry), live.content(entry)
                assert os.pread(then.fd, entry.size, then.extents[0].source if then.extents else 0) == os.pread(
                    now.fd, entry.size, 0
                )
                then.close()
                now.close()


def test_nothing_changes(root: Path, tmp_path: Path, guards: Guards) -> None:
    assert_recorded(create(root, tmp_path, guards))
    assert not [name for name in os.listdir(tmp_path) if name != "manifest"]


@pytest.mark.parametrize("seed", range(6))
def test_changes_before_the_last_walk(
    root: Path, tmp_path: Path, guards: Guards, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """After all was linked, and before anybody guards it."""
    start = Guards.start

    def change_first(self: Guards, *arguments: Any) -> object:
        change(root, random.Random(seed))
        return start(self, *arguments)

    monkeypatch.setattr(Guards, "start", change_first)
    assert_recorded(create(root, tmp_path, guards))


@pytest.mark.parametrize("seed", range(4))
def test_a_file_is_being_written(root: Path, tmp_path: Path, guards: Guards, seed: int) -> None:
    """Its directory is recorded apart, wherever it lies, also at the border of two parts."""
    names = [f"d{number:02}/f03" for number in random.Random(seed).sample(range(DIRECTORIES), 3)] + ["a-file"]
    (root / "a-file").touch()
    script = (
        "import sys, time; files = [open(one, 'r+') for one in sys.argv[1:]]; print(flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, *names]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            writer.stdout.readline()
            stored = create(root, tmp_path, guards)
            assert stored.data["frozen_writers"]
            assert_recorded(stored)
        finally:
            writer.kill()


def test_a_helper_dies(root: Path, tmp_path: Path, guards: Guards, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = os.getpid()
    walk_part = LiveTree.walk_part

    def dies(self: LiveTree, bounds: bounds.Bounds) -> object:
        if os.getpid() != parent:
            os._exit(1)
        return walk_part(self, bounds)

    monkeypatch.setattr(LiveTree, "walk_part", dies)
    with pytest.raises(CheckpointError, match="has died"):
        create(root, tmp_path, guards)


def test_a_helper_fails(root: Path, tmp_path: Path, guards: Guards, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = os.getpid()
    walk_part = LiveTree.walk_part

    def fails(self: LiveTree, bounds: bounds.Bounds) -> object:
        if os.getpid() != parent:
            raise OSError(5, "Input/output error", b"d30/f00")
        return walk_part(self, bounds)

    monkeypatch.setattr(LiveTree, "walk_part", fails)
    with pytest.raises(CheckpointError, match="d30/f00: Input/output error"):
        create(root, tmp_path, guards)
    assert not os.listdir(tmp_path)


def test_a_path_is_given_to_another_file(
    root: Path, tmp_path: Path, guards: Guards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at its directory and the link: it would lie under a number that is not its own."""
    done: list[bytes] = []
    monkeypatch.setattr("snapbreaker_backends.filecopy.linking.how_many", lambda: 1)

    def replaced(fd: int, directory: int, name: bytes) -> None:
        if not done:
            done.append(name)
            other = os.open(root / "d20/f00", os.O_RDONLY)
            try:
                os.dup2(other, fd)
            finally:
                os.close(other)
        link_fd(fd, directory, name)

    monkeypatch.setattr(links, "link_fd", replaced)
    assert_recorded(create(root, tmp_path, guards))


def change(root: Path, choice: random.Random) -> None:
    for number in range(60):
        directory = root / f"d{choice.randrange(DIRECTORIES):02}"
        if not directory.is_dir():
            continue
        path = directory / f"f{choice.randrange(FILES):02}"
        what = choice.randrange(7)
        if what == 0:
            path.unlink(missing_ok=True)
        elif what == 1:
            path.write_text(f"changed {number}")
        elif what == 2:
            (directory / f"new{number}").write_text("new")
        elif what == 3 and path.exists():
            path.rename(directory / f"g{number}")
        elif what == 4 and path.exists():
            path.chmod(0o600)
        elif what == 5 and number % 10 == 0:
            directory.rename(root / f"e{number}")
        else:
            (directory / f"sub{number}").mkdir()
            (directory / f"sub{number}" / "x").write_text("x")
