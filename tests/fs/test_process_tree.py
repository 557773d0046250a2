"""The process tree by itself, as the watchdog and recover use it: from another process, after the owner died."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from snapbreaker.linux.process import Identity, is_alive, process
from snapbreaker.monitor.cgroup import Hierarchy
from snapbreaker.monitor.process_tree import ProcessTree
from tests.fs.processes import Watcher, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes cgroups: run as root")
both = pytest.mark.parametrize("use_cgroup", [True, False], ids=["cgroup", "no-cgroup"])

ORPHANS = "(setsid sh -c 'trap \"\" TERM; sleep 1000; :' &); sleep 1001 & sleep 0.2; echo ready; wait"


def start(directory: Path, script: str = ORPHANS, **options: Any) -> tuple[Watcher, dict[str, Any]]:
    watcher = Watcher(
        directory,
        {"argv": ["sh", "-c", script], **options},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert watcher.process.stdout
    assert watcher.process.stdout.readline() == b"ready\n"
    return watcher, watcher.tree()


@both
def test_all_are_killed_after_their_owner(tmp_path: Path, use_cgroup: bool) -> None:
    watcher, description = start(tmp_path, use_cgroup=use_cgroup)
    watcher.process.kill()
    watcher.process.wait()
    assert (description["cgroup"] is not None) is use_cgroup
    tree = ProcessTree.reopen(description)
    assert tree
    assert not tree.is_owner_alive()
    members = tree.members()
    assert sorted(one.comm for one in members.values()) == ["sh", "sh", "sleep", "sleep"]
    assert tree.freeze(1).frozen
    report = tree.kill()
    assert (report.killed, report.survivors) == (4, [])
    assert not any(is_alive(one.identity) for one in members.values())
    assert tree.remove()
    assert tree.remove()


def test_scope_made_for_a_process_of_the_run(tmp_path: Path) -> None:
    """As pam_systemd does for ``su -``: a new scope, a clean environment; then parents that died."""
    hierarchy = Hierarchy.find()
    if hierarchy is None:
        pytest.skip("no cgroup v2 is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
    scope = f"{hierarchy.mountpoint}/test-{os.getpid()}.scope"
    script = f"""
    mkdir {scope}
    sh -c 'echo $$ > {scope}/cgroup.procs; (setsid env -i sleep 1002 &); exec env -i sleep 1003' &
    sleep 0.3; echo ready; wait"""
    watcher, description = start(tmp_path, script)
    watcher.process.kill()
    watcher.process.wait()
    tree = ProcessTree.reopen(description)
    assert tree
    assert tree.freeze(1).frozen
    report = tree.kill()
    assert (report.killed, report.survivors) == (3, [])
    assert Path(scope, "cgroup.procs").read_text() == ""
    os.rmdir(scope)
    assert tree.remove()


def test_nothing_is_left_of_another_boot(tmp_path: Path) -> None:
    watcher, description = start(tmp_path)
    assert ProcessTree.reopen({**description, "boot_id": "another"}) is None
    watcher.process.terminate()
    watcher.finish()


def test_a_pid_that_is_used_again_is_not_touched() -> None:
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        found = process(stranger.pid)
        assert found
        tree = ProcessTree("gone", Identity(1 << 30, found.start), None)
        tree.root = Identity(stranger.pid, found.start - 1)
        assert tree.members() == {}
        assert tree.kill().killed == 0
        assert stranger.poll() is None
        stranger.kill()


def test_cgroup_with_our_name_but_another_id(tmp_path: Path) -> None:
    watcher, description = start(tmp_path)
    description["cgroup"]["id"] += 1
    tree = ProcessTree.reopen(description)
    assert tree
    assert tree.cgroup is None
    watcher.process.terminate()
    watcher.finish()


def test_freeze_and_thaw_from_outside(tmp_path: Path) -> None:
    watcher, description = start(tmp_path)
    tree = ProcessTree.reopen(description)
    assert tree
    assert tree.freeze(1).frozen
    assert tree.freeze(1).frozen
    tree.thaw()
    wait_for(lambda: all(one.state == "S" for one in tree.members().values()))
    watcher.process.terminate()
    assert watcher.finish()["survivors"] == []


def test_children_that_were_there_before_are_not_of_the_run() -> None:
    with subprocess.Popen(["sleep", "1000"]) as earlier:
        tree = ProcessTree.create(f"test-{os.getpid()}-{time.monotonic_ns()}")
        with subprocess.Popen(["sh", "-c", "sleep 1001 & wait"]) as later:
            wait_for(lambda: len(tree.members()) == 2)
            tree.exclude(later.pid)
            assert tree.members() == {}
            assert tree.kill().killed == 0
            assert (earlier.poll(), later.poll()) == (None, None)
            tree.excluded.clear()
            tree.exclude(earlier.pid)
            assert tree.kill().killed == 2
            assert earlier.poll() is None
        earlier.kill()
        assert tree.remove()


def test_release_lets_daemons_live() -> None:
    tree = ProcessTree.create(f"test-{os.getpid()}-{time.monotonic_ns()}")
    assert tree.cgroup
    fd = tree.cgroup.open_procs()
    with subprocess.Popen(["sleep", "1000"], preexec_fn=lambda: os.write(fd, b"0"), pass_fds=[fd]) as daemon:
        path = tree.cgroup.path
        nested = Path(path, "nested")
        nested.mkdir()
        (nested / "cgroup.procs").write_text(str(daemon.pid))
        tree.freeze(1)
        assert tree.release() == [(daemon.pid, "sleep")]
        assert not Path(path).exists()
        assert daemon.poll() is None
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(5) == -signal.SIGTERM
    os.close(fd)
