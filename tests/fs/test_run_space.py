"""A filesystem that is full when the checkpoint is made, or becomes full while the command runs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests import comparer
from tests.fs.conftest import MakeFilesystem
from tests.lab import hostile
from tests.lab.loopfs import FSTYPES, LoopFilesystem
from tests.lab.tool import Tool, wait_for

MIB = 1 << 20


def fill(path: Path) -> None:
    """Write to ``path`` until the filesystem has no byte left."""
    with path.open("wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            _write_until_full(file.fileno(), b"f" * size)
        os.fsync(file.fileno())


def _write_until_full(fd: int, block: bytes) -> None:
    while True:
        try:
            os.write(fd, block)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return


@pytest.fixture(params=FSTYPES)
def small(request: pytest.FixtureRequest, make_filesystem: MakeFilesystem) -> LoopFilesystem:
    return make_filesystem(request.param, size=320 * MIB)


def test_full_at_create(tool: Tool, make_filesystem: MakeFilesystem) -> None:
    """ext4 has no other way than to copy, and no place for it: the command is not started."""
    filesystem = make_filesystem("ext4", size=64 * MIB)
    root = filesystem.path / "root"
    root.mkdir()
    (root / "big").write_bytes(os.urandom(20 * MIB))
    fill(filesystem.path / "ballast")
    before = comparer.snapshot(filesystem.path)
    result = tool.run(root, "touch", root / "started")
    assert result.status == 4, result.stderr
    assert b"space" in result.stderr
    assert comparer.differences(before, comparer.snapshot(filesystem.path)) == []
    assert not (filesystem.path / ".snapbreaker").exists()
    assert tool.checkpoints() == []


def assert_halted(tool: Tool, root: Path, script: str, why: bytes) -> None:
    """Before the command itself has met the end; and everything is back."""
    before = comparer.snapshot(root)
    result = tool.run(root, "sh", "-c", f"cd {root}; {script}", timeout=120)
    assert result.status == 1, result.stderr
    assert why in result.stdout + result.stderr
    assert b"met the end" not in result.stdout
    assert comparer.differences(before, comparer.snapshot(root)) == []


def test_space_runs_out_slowly(tool: Tool, small: LoopFilesystem) -> None:
    """Halted while there is still some left, not when the command has met the end."""
    root = small.path / "root"
    root.mkdir()
    (root / "file").write_text("before")
    script = "for n in $(seq 1000); do head -c 2M /dev/urandom >f$n || echo met the end; sync; sleep 0.05; done"
    assert_halted(tool, root, script, b"would endanger the rollback")


def test_inodes_run_out(tool: Tool, make_filesystem: MakeFilesystem) -> None:
    filesystem = make_filesystem("ext4", size=64 * MIB)
    root = filesystem.path / "root"
    root.mkdir()
    (root / "file").write_text("before")
    script = "for n in $(seq 20000); do : >f$n || echo met the end; [ $((n % 100)) != 0 ] || sleep 0.02; done"
    assert_halted(tool, root, script, b"inodes are left free")


def test_the_store_fills(small: LoopFilesystem, make_filesystem: MakeFilesystem) -> None:
    """It lies on a filesystem that is none of the run's."""
    tool, root = Tool(small.path), make_filesystem("ext4", size=64 * MIB).path / "root"
    root.mkdir()
    (root / "file").write_text("before")
    script = "for n in $(seq 1000); do head -c 2M /dev/urandom >>%s || echo met the end; sync; sleep 0.05; done"
    assert_halted(
        tool, root, f"touch changed; {script % (small.path / 'ballast')}", b"would endanger the rollback"
    )


def test_what_the_guard_saves_fills_the_vault(tool: Tool, make_filesystem: MakeFilesystem) -> None:
    filesystem = make_filesystem("ext4", size=320 * MIB)
    root = filesystem.path / "root"
    root.mkdir()
    for number in range(60):
        (root / f"f{number}").write_bytes(os.urandom(2 * MIB))
    os.sync()
    script = "for n in $(seq 0 59); do echo x >>f$n; sleep 0.05; done; sleep 9"
    assert_halted(tool, root, f"fallocate -l 30M ../ballast; {script}", b"would endanger the rollback")


def test_full_at_create_anywhere(tool: Tool, small: LoopFilesystem) -> None:
    """Either it is refused and nothing was done, or the run is guarded as ever."""
    root = small.path / "root"
    root.mkdir()
    (root / "file").write_text("before")
    fill(small.path / "ballast")
    before = comparer.snapshot(small.path)
    result = tool.run(root, "sh", "-c", f"rm {root}/file; exit 1")
    assert result.status in (1, 4), result.stderr
    assert comparer.differences(before, comparer.snapshot(small.path)) == []


def test_filled_by_the_command(tool: Tool, small: LoopFilesystem) -> None:
    root = small.path / "root"
    hostile.seed(root)
    before = comparer.snapshot(small.path)
    script = f"rm -rf {root}/content {root}/kinds; cat /dev/zero > {root}/flood"
    result = tool.run(root, "sh", "-c", script)
    assert result.status == 1, result.stderr
    assert comparer.differences(before, comparer.snapshot(small.path)) == []


def test_filled_by_another_process(tool: Tool, small: LoopFilesystem) -> None:
    """Space that the rollback cannot win back is taken while the command runs: exact, or said to be not."""
    root = small.path / "root"
    hostile.seed(root)
    before = comparer.snapshot(root)
    process = tool.start(
        "run", "--scope", root, "--", "sh", "-c", f"rm -rf {root}/content; echo ready; read x; exit 1", stdin=-1
    )
    wait_for(process, "ready")
    fill(small.path / "ballast")
    _, stderr = process.communicate(b"go\n", timeout=60)
    found = comparer.differences(before, comparer.snapshot(root))
    assert process.returncode == (3 if found else 1), (stderr, found)
    if found:
        (small.path / "ballast").unlink()
        assert tool("rollback", "--last", "--yes").status == 0
        assert comparer.differences(before, comparer.snapshot(root)) == []
