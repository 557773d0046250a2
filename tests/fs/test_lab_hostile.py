"""The hostile deploy runs on every filesystem, changes every aspect, and does not stop by itself."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from tests import comparer
from tests.lab import hostile
from tests.lab.loopfs import LoopFilesystem

FIELDS = {
    *("kind", "mode", "uid", "gid", "size", "mtime_ns", "rdev", "digest", "data"),
    *("target", "xattrs", "flags", "linked"),
}


def test_seed_and_mutate_cover_every_aspect(filesystem: LoopFilesystem) -> None:
    root = filesystem.path / "root"
    hostile.seed(root)
    before = comparer.snapshot(root)
    assert comparer.differences(before, comparer.snapshot(root)) == []
    hostile.mutate(root)
    after = comparer.snapshot(root)
    changed = {
        field
        for path in before.keys() & after.keys()
        for field in comparer.Facts._fields
        if getattr(before[path], field) != getattr(after[path], field)
    }
    expected = FIELDS | ({"project"} if filesystem.projects else set())
    assert expected | ({"subvolume"} if filesystem.fstype == "btrfs" else set()) == changed
    assert before.keys() - after.keys()
    assert after.keys() - before.keys()
    assert max(map(len, before)) > 4096


def test_deploy_survives_its_parent_and_ignores_term(ext4: LoopFilesystem, tmp_path: Path) -> None:
    root, pids = ext4.path / "root", tmp_path / "pids"
    hostile.seed(root)
    command = [sys.executable, "-m", "tests.lab.hostile", "deploy", str(root), str(pids)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as deploy:
        assert deploy.stdout
        assert [deploy.stdout.readline() for _ in range(2)] == ["Applying migrations\n", hostile.ERROR_LINE + "\n"]
        deploy.kill()
    alive = hostile.processes(pids)
    assert len(alive) == 1
    try:
        subprocess.run(["kill", "-TERM", str(alive[0])], check=True)
        size = (root / "daemon.log").stat().st_size
        time.sleep(0.1)
        assert (root / "daemon.log").stat().st_size > size
    finally:
        subprocess.run(["kill", f"-{signal.SIGKILL.value}", str(alive[0])], check=True)
