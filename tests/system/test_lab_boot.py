"""The edges of a lab machine's life: what comes before init, an init that is missing, and that nothing is left."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab import cgroups, sessions
from tests.lab.errors import LabError
from tests.lab.machine import Machine
from tests.system.conftest import MakeMachine

REPOSITORY = Path(__file__).parents[2]
MISSING = Machine.missing("ext4") or Machine.missing("btrfs")
needs_machines = pytest.mark.skipif(bool(MISSING), reason=MISSING)
DYING_SESSION = """
import os, signal, sys
from tests.lab import sessions
from tests.lab.machine import Machine
session = sessions.open_session()
machine = Machine.create("ext4", session)
machine.boot()
machine.start("sleep", "60")
print(session, machine.container.init, flush=True)
if sys.argv[1] == "with its keeper":
    machine.container.helpers[0].kill()
os.kill(os.getpid(), signal.SIGKILL)
"""
SWAP = """#!/bin/sh -e
# A rollback before the root is used: a snapshot of @ takes its place.
top=$(mktemp -d)
mount -t btrfs -o subvolid=5 "$ROOT" "$top"
btrfs -q subvolume snapshot "$top/@" "$top/new"
mv "$top/@" "$top/old"
mv "$top/new" "$top/@"
echo swapped >"$top/@/etc/which"
umount "$top" "$rootmnt"
mount -t "$ROOTFSTYPE" -o "$ROOTFLAGS" "$ROOT" "$rootmnt"
"""


def script(directory: Path, text: str) -> Path:
    path = directory / "hook"
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_hooks_run_with_the_root_before_init(make_machine: MakeMachine, tmp_path: Path) -> None:
    machine = make_machine("ext4")
    hook = script(tmp_path, '#!/bin/sh\necho "$$ $ROOT" >"$rootmnt/etc/hook"; echo seen; exit 7\n')
    assert machine.boot(before_init=[hook]) == "running"
    assert machine.run("grep", "-c", f" {machine.disk.device}$", "/etc/hook").stdout == "1\n"
    assert f"seen\nstage: {hook} ended with 7\n" in machine.console()


def test_a_hook_can_put_another_root_there(make_machine: MakeMachine, tmp_path: Path) -> None:
    machine = make_machine("btrfs")
    assert machine.boot(before_init=[script(tmp_path, SWAP)]) == "running", machine.console()
    assert machine.run("cat", "/etc/which").stdout == "swapped\n"
    assert (machine.root / "etc/which").read_text() == "swapped\n"
    machine.stop()
    assert (machine.root / "etc/which").read_text() == "swapped\n"
    with machine.top_level() as top:
        assert sorted(entry.name for entry in top.iterdir()) == ["@", "old"]
    assert machine.boot() == "running"
    assert machine.run("cat", "/etc/which").stdout == "swapped\n"


def test_without_an_init_the_console_is_told(make_machine: MakeMachine) -> None:
    machine = make_machine("ext4")
    init = machine.root / "sbin/init"
    init.rename(init.with_name("init.away"))
    with pytest.raises(LabError, match=r"(?s)init did not start.*/sbin/init.*No such file"):
        machine.boot()
    assert not machine.running
    (machine.root / "sbin/init.away").rename(machine.root / "sbin/init")
    assert machine.boot() == "running"


def processes_in(cgroup: Path) -> set[int]:
    return {int(pid) for file in cgroup.rglob("cgroup.procs") for pid in file.read_text().split()}


@needs_machines
def test_close_leaves_nothing(lab: Path) -> None:
    before = set(lab.iterdir())
    machine = Machine.create("btrfs", lab, "gone")
    machine.boot()
    sleeper = machine.pid(machine.start("setsid", "sleep", "60"))
    assert machine.container
    processes = processes_in(machine.container.cgroup)
    assert {sleeper, machine.container.init} < processes
    assert machine.close() == []
    assert set(lab.iterdir()) == before
    assert "/gone" not in Path("/proc/self/mountinfo").read_text()
    assert "/gone.img" not in subprocess.run(["losetup", "-a"], capture_output=True, text=True).stdout
    assert cgroups.named(f"{lab.name}.gone") == []
    assert [pid for pid in processes if Path(f"/proc/{pid}").exists()] == []


@needs_machines
@pytest.mark.parametrize("killed", ["alone", "with its keeper"])
def test_sweep_after_a_killed_owner(killed: str) -> None:
    argv = [sys.executable, "-c", DYING_SESSION, killed]
    child = subprocess.run(argv, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert child.returncode == -9
    session, init = child.stdout.split()
    if killed == "alone":
        deadline = time.monotonic() + 10
        while Path(f"/proc/{init}").exists():
            assert time.monotonic() < deadline, "the container outlives its owner"
            time.sleep(0.01)
    sessions.sweep()
    assert not Path(f"/proc/{init}").exists()
    assert not Path(session).exists()
    assert sessions.mounts_below(Path(session)) == []
    assert cgroups.named(Path(session).name) == []
    assert session not in subprocess.run(["losetup", "-a"], capture_output=True, text=True).stdout
