"""The lab's own ground: filesystems come up, go away, and dead sessions are swept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.fs.conftest import MakeFilesystem
from tests.lab import sessions
from tests.lab.loopfs import LoopFilesystem

DYING_SESSION = """
import os, sys
from tests.lab import loopfs, sessions
session = sessions.open_session()
loopfs.make("ext4", session, "left", 64 << 20)
print(session, flush=True)
os.kill(os.getpid(), 9)
"""


def test_filesystem_is_mounted_empty_and_writable(filesystem: LoopFilesystem) -> None:
    fields = next(
        line.split()
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if line.split()[4] == str(filesystem.path)
    )
    assert fields[fields.index("-") + 1] == filesystem.fstype
    assert "noatime" in fields[5]
    (filesystem.path / "new").write_bytes(b"x" * 4096)


def test_close_kills_what_still_uses_the_filesystem(make_filesystem: MakeFilesystem, lab: Path) -> None:
    filesystem = make_filesystem("ext4", name="busy")
    sleeper = subprocess.Popen(["sleep", "60"], cwd=filesystem.path)
    left = [user for where in sessions.mounts_below(filesystem.path) for user in sessions.unmount(where)]
    assert left == [f"{sleeper.pid} (sleep 60)"]
    assert sleeper.wait(5) == -9


def test_sweep_removes_what_a_killed_session_left() -> None:
    root = Path(__file__).parents[2]
    child = subprocess.run([sys.executable, "-c", DYING_SESSION], capture_output=True, text=True, cwd=root)
    left = Path(child.stdout.strip())
    assert child.returncode == -9
    assert sessions.mounts_below(left)
    sessions.sweep()
    assert not left.exists()
    assert not sessions.mounts_below(left)
