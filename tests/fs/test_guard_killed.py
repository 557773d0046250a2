"""The guard and its watchdog are stopped or killed by the very command: nothing hangs."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.fs.conftest import MakeFilesystem
from tests.fs.guarded import Scene, processes
from tests.fs.processes import children
from tests.fs.test_run_killed import settle
from tests.lab.tool import Tool, wait_for

SEED = "as it was before\n"
# What the command finds: the guard's pid in its log, the watchdog above it.
WHO = (
    "guard=$(sed -n 's/.*\"pid\":\\([0-9]*\\).*/\\1/p;q' ../.snapbreaker/*/0/guard.log); "
    "dog=$(cut -d' ' -f4 /proc/$guard/stat); "
)
ATTACKS = {
    "guard killed": "kill -9 $guard; ",
    "guard stopped": "kill -STOP $guard; ",
    "watchdog killed": "kill -9 $dog; ",
    "watchdog killed, guard stopped": "kill -STOP $guard; kill -9 $dog; ",
    "watchdog stopped, guard killed": "kill -STOP $dog; kill -9 $guard; ",
}


@pytest.fixture
def scene(make_filesystem: MakeFilesystem, tool: Tool) -> Scene:
    return Scene(tool, make_filesystem("ext4", size=256 << 20), "asked")


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacked_by_the_command(scene: Scene, attack: str) -> None:
    scene.seed("victim", "other", content=SEED)
    began = time.monotonic()
    result = scene.sh(f"{WHO}{ATTACKS[attack]}echo after >victim; rm other; sleep 30", timeout=60)
    assert time.monotonic() - began < 12
    assert (scene.root / "other").exists(), result
    if result.status == 3:
        # Which of the two nobody can vouch for depends on how far the command came.
        said = result.stdout + result.stderr
        named = {name for name in ("victim", "other") if str(scene.root / name).encode() in said}
        assert named, result
        assert all((scene.root / name).read_text() == SEED for name in {"victim", "other"} - named)
    else:
        assert result.status == 1, result.stderr
        scene.assert_exact()
    assert list(processes(f"SNAPBREAKER_STORE={scene.tool.store}".encode())) == []


@pytest.mark.parametrize("victims", ["worker", "everyone"])
def test_snapbreaker_killed(scene: Scene, victims: str) -> None:
    """The guard outlives the worker; whoever finishes the run ends it."""
    scene.seed("victim", "other")
    process = scene.start("echo after >victim; rm other; echo up; sleep 60")
    wait_for(process, "up")
    chosen = children(process.pid)[:1] if victims == "worker" else [*children(process.pid), process.pid]
    for pid in chosen:
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=60)
    if victims == "everyone":
        assert settle(scene.tool).status == 0
    else:
        assert process.returncode == 1
    scene.assert_exact()
    scene.assert_nothing_left()


def test_vault_is_found(scene: Scene) -> None:
    """What the attacks go by."""
    scene.seed("file")
    process = scene.start("echo up; while [ ! -e go ]; do sleep 0.05; done")
    wait_for(process, "up")
    assert Path(f"/proc/{scene.guard()}").exists()
    (scene.root / "go").touch()
    process.communicate(timeout=60)
    assert process.returncode == 0
    scene.assert_nothing_left()
