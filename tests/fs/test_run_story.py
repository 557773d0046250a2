"""Odd turns of a run's story: the scope itself goes, streams and stores fail, records are damaged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from snapbreaker.checkpoint.states import State
from snapbreaker.checkpoint.store import Store
from tests import comparer
from tests.fs.conftest import MakeFilesystem
from tests.fs.test_run_space import fill
from tests.lab.loopfs import LoopFilesystem
from tests.lab.tool import Tool, wait_for

REPLACED = {
    "removed": "rm -rf {root}",
    "moved": "mv {root} {away}",
    "file": "mv {root} {away}; touch {root}",
    "link": "mv {root} {away}; ln -s /etc {root}",
}


@pytest.fixture
def root(filesystem: LoopFilesystem) -> Path:
    return _seeded(filesystem.path / "above/root")


@pytest.fixture
def small(ext4: LoopFilesystem) -> Path:
    return _seeded(ext4.path / "above/root")


def _seeded(root: Path) -> Path:
    (root / "sub").mkdir(parents=True)
    (root / "sub/file").write_text("before\n")
    (root / "config").write_text("before\n")
    root.chmod(0o751)
    os.setxattr(root, "user.kept", b"yes")
    return root


@pytest.mark.parametrize("how", REPLACED)
@pytest.mark.parametrize("end", ["false", "true"])
def test_the_scope_itself_comes_back(tool: Tool, root: Path, how: str, end: str) -> None:
    """A run that ends well without its scope is halted too: that change could not be undone."""
    before = comparer.snapshot(root)
    script = REPLACED[how].format(root=root, away=root.parent / "away")
    result = tool.run(root, "sh", "-c", f"{script}; {end}")
    assert result.status == 1, result.stderr
    assert comparer.differences(before, comparer.snapshot(root)) == []


def test_a_subvolume_comes_back_as_one(tool: Tool, btrfs: LoopFilesystem) -> None:
    root = btrfs.path / "subvolume"
    subprocess.run(["btrfs", "-q", "subvolume", "create", root], check=True)
    _seeded(root)
    assert tool.run(root, "sh", "-c", f"rm -rf {root}; false").status == 1
    assert (root / "config").read_text() == "before\n"
    assert root.stat().st_ino == 256


@pytest.mark.parametrize("over", ["link", "mount"])
def test_nothing_above_the_scope_leads_elsewhere(tool: Tool, small: Path, over: str) -> None:
    """What was never recorded is never touched, and the rollback can be made up for."""
    above, away = small.parent, small.parents[1] / "away"
    before = comparer.snapshot(small)
    other = f"mv {above} {away}; mkdir -p {above}2/root; touch {above}2/root/precious; ln -s {above}2 {above}"
    script = other if over == "link" else f"echo after > {small}/config; mount -t tmpfs none {above}"
    result = tool.run(small, "sh", "-c", f"{script}; false")
    assert result.status == 3, result.stderr
    if over == "link":
        assert (above / "root/precious").exists()
        above.unlink()
        away.rename(above)
    else:
        subprocess.run(["umount", above], check=True)
    assert tool("rollback", "--last").status == 0
    assert comparer.differences(before, comparer.snapshot(small)) == []


@pytest.mark.parametrize("end", ["echo ERROR: no", "true", "kill"])
def test_store_filled_by_the_command(tool: Tool, small: Path, end: str, make_filesystem: MakeFilesystem) -> None:
    """The record has space set aside for its states, so that the run ends as ever: or is halted before it does."""
    elsewhere = make_filesystem("ext4", size=64 << 20).path
    store, ballast = elsewhere / "store", elsewhere / "ballast"
    process = tool.start(
        *("run", "--scope", small, "--", "sh", "-c", f"echo after > {small}/config; echo ready; read x; {end}"),
        env={"SNAPBREAKER_STORE": str(store)},
        stdin=subprocess.PIPE,
    )
    wait_for(process, "ready")
    fill(ballast)
    if end == "kill":
        worker = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        os.kill(worker, signal.SIGKILL)
    _, stderr = process.communicate(b"go\n", timeout=60)
    halted = end != "true" or b"would endanger the rollback" in stderr
    assert process.returncode == halted, stderr.decode()
    assert (small / "config").read_text() == ("before\n" if halted else "after\n")


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_states_where_others_take_what_is_free(tool: Tool, make_filesystem: MakeFilesystem, kind: str) -> None:
    """They are written over what the record holds already."""
    filesystem = make_filesystem(kind, size=320 << 20)
    root = _seeded(filesystem.path / "root")
    store = Store(filesystem.path / "store")
    tool("checkpoint", "create", "--scope", root, env={"SNAPBREAKER_STORE": str(store.path)})
    (record,) = store.records()
    fill(filesystem.path / "ballast")
    assert record.unreserve()
    fill(filesystem.path / "more ballast")
    for state in (State.RESTORING, State.VERIFYING, State.RESTORING, State.VERIFYING, State.ROLLED_BACK):
        record.enter(state, told="n" * 300)
        assert record.state is state
    assert sorted(path.name for path in record.path.glob("state*")) == ["state.json", "state.spare"]


def test_the_worker_dies_and_nobody_listens(tool: Tool, small: Path) -> None:
    """The supervisor's own words go to a pipe without a reader: it rolls back all the same."""
    process = tool.start(
        "run", "--scope", small, "--", "sh", "-c", f"echo after > {small}/config; echo up; sleep 60"
    )
    wait_for(process, "up")
    assert process.stderr
    process.stderr.close()
    worker = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    os.kill(worker, signal.SIGKILL)
    assert process.wait(30) == 1
    assert (small / "config").read_text() == "before\n"


def test_create_ended_by_a_signal(tool: Tool, small: Path) -> None:
    for number in range(4000):
        (small / f"{number}").touch()
    process = tool.start("checkpoint", "create", "--scope", small)
    while not tool.store.joinpath("sequence.new").exists() and not list(tool.store.glob("*-*T*")):
        assert process.poll() is None
    process.terminate()
    _, stderr = process.communicate(timeout=30)
    assert process.returncode in (0, 143), stderr
    assert b"Traceback" not in stderr
    assert tool("recover").status == 0
    assert len(tool.checkpoints()) == (process.returncode == 0)


def test_a_damaged_record_blocks_runs_until_it_is_given_up(tool: Tool, small: Path) -> None:
    assert tool.run(small, "touch", small / "new").status == 0
    (record,) = tool.checkpoints()
    (tool.store / record["id"] / "state.json").write_bytes(b"")
    (tool.store / record["id"] / "volumes/0/vault.json").write_bytes(b"")
    assert [entry["state"] for entry in tool.checkpoints()] == ["damaged"]
    assert tool("recover").status == 3
    refused = tool.run(small, "true")
    assert refused.status == 4
    assert b"delete --force" in refused.stderr
    assert tool("checkpoint", "delete", record["id"]).status == 4
    assert tool("checkpoint", "delete", "--force", record["id"], record["id"]).status == 0
    assert tool.checkpoints() == []
    assert not (small.parents[1] / ".snapbreaker").exists()
    assert tool.run(small, "true").status == 0


def test_a_vault_out_of_reach_is_not_forgotten(tool: Tool, small: Path) -> None:
    mountpoint = tool.home / "bound"
    mountpoint.mkdir()
    subprocess.run(["mount", "--bind", small, mountpoint], check=True)
    try:
        assert tool.run(mountpoint, "true").status == 0
    finally:
        subprocess.run(["umount", mountpoint], check=True)
    refused = tool("checkpoint", "delete", tool.checkpoints()[0]["id"])
    assert (refused.status, len(tool.checkpoints())) == (4, 1)
    assert b"not mounted" in refused.stderr
    assert tool("checkpoint", "delete", "--force", tool.checkpoints()[0]["id"]).status == 0


def test_what_others_mounted_later_stays_mounted(tool: Tool, small: Path) -> None:
    (small / "disk").mkdir()
    assert tool.run(small, "sh", "-c", f"echo after > {small}/config").status == 0
    subprocess.run(["mount", "-t", "tmpfs", "none", small / "disk"], check=True)
    try:
        result = tool("rollback", "--last")
        assert result.status == 0, result.stderr
        assert b"left mounted" in result.stderr
        assert os.path.ismount(small / "disk")
    finally:
        subprocess.run(["umount", small / "disk"], check=True)
    assert (small / "config").read_text() == "before\n"


def test_conflicts_are_listed(tool: Tool, small: Path) -> None:
    assert tool.run(small, "sh", "-c", f"echo after > {small}/config").status == 0
    (small / "config").write_text("later\n")
    refused = tool("rollback", "--last")
    assert refused.status == 4
    assert str(small / "config").encode() in refused.stderr


def test_a_store_behind_a_link_into_the_scope(tool: Tool, root: Path) -> None:
    """It is left out like any other: a restore never takes the record that it works on back."""
    (root / "store").mkdir(mode=0o700)
    link = tool.home / "link"
    link.symlink_to(root / "store")
    script = f"echo after > {root}/config; false"
    result = tool.run(root, "sh", "-c", script, env={"SNAPBREAKER_STORE": str(link)})
    assert result.status == 1, result.stderr
    assert (root / "config").read_text() == "before\n"
    assert b"rolled-back" in tool("checkpoint", "list", env={"SNAPBREAKER_STORE": str(link)}).stdout


MEANINGLESS = [
    ["--scope", ""],
    ["--scope", "/srv", "--keep", ""],
    ["--scope", ".", "--idle", "nan"],
    ["--scope", ".", "--timeout", "inf"],
    ["--scope", ".", "--grace", "-1"],
]


@pytest.mark.parametrize("arguments", MEANINGLESS)
def test_meaningless_options(tool: Tool, small: Path, arguments: list[str]) -> None:
    """An empty path above all: it is a variable that was never set, not the current directory."""
    assert tool("run", *arguments, "--", "true", cwd=small).status == 2


def test_confirm_when_nobody_waits(tool: Tool, small: Path) -> None:
    result = tool.run(small, "sh", "-c", f"echo after > {small}/config", options=["--confirm", "0.2"])
    assert result.status == 1
    assert tool("confirm", "--last").status == 4
    assert (small / "config").read_text() == "before\n"


KILLED_AT_STEP = """
import os, signal, sys
from snapbreaker.cli.main import launch
from snapbreaker.files import ops

steps = int(sys.argv.pop(1))

def before(operation, name):
    global steps
    steps -= 1
    if steps == 0:
        os.kill(os.getpid(), signal.SIGKILL)

ops.before = before
launch()
"""


def test_a_redo_that_is_cut_off_can_be_made_again(tool: Tool, small: Path) -> None:
    """Each time `recover` goes back to what was rolled back, and the next redo starts from there."""
    assert tool.run(small, "sh", "-c", f"echo after > {small}/config; rm -r {small}/sub").status == 0
    after = comparer.snapshot(small)
    assert tool("rollback", "--last").status == 0
    before = comparer.snapshot(small)
    for step in ("3", "8", "14"):
        cut = tool("rollback", "--last", "--redo", entry=("-c", KILLED_AT_STEP, step))
        assert cut.status == -signal.SIGKILL, cut.stderr
        assert tool("recover").status == 0
        assert comparer.differences(before, comparer.snapshot(small)) == []
    assert tool("rollback", "--last", "--redo").status == 0
    assert comparer.differences(after, comparer.snapshot(small)) == []


def test_without_proc(tool: Tool, small: Path) -> None:
    call = f"umount -l /proc; exec {sys.executable} -m snapbreaker run --scope {small} -- touch {small}/new"
    done = subprocess.run(["unshare", "-m", "sh", "-c", call], env=tool.environment, capture_output=True)
    assert (done.returncode, b"Traceback" in done.stderr) == (4, False), done.stderr
    assert b"/proc is not mounted" in done.stderr
    assert not (small / "new").exists()
