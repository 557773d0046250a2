"""Foreign writes: real processes that are of a run or not, real filesystems, a real process tree and watcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from snapbreaker.foreign.log import ForeignWrites, read
from snapbreaker.linux.proc_events import ForkEvents
from snapbreaker.monitor.cgroup import Hierarchy
from snapbreaker.monitor.process_tree import MARKER
from snapbreaker.writers import Inode
from tests.fs.conftest import MakeFilesystem
from tests.fs.processes import wait_for
from tests.lab.foreign_run import Run
from tests.lab.loopfs import LoopFilesystem

HOLDS = """
import os, sys
file = open(os.fsencode(sys.argv[1]), "ab", buffering=0)
file.write(b"held")
print("ready", flush=True)
sys.stdin.read()
"""
MAPS = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 8192)
memory = mmap.mmap(fd, 8192)
os.close(fd)
memory[0:6] = b"mapped"
print("ready", flush=True)
sys.stdin.read()
"""


StartRun = Callable[..., Run]


@pytest.fixture
def start_run(tmp_path: Path) -> Iterator[StartRun]:
    made: list[Run] = []

    def start(*mountpoints: Path, **options: Any) -> Run:
        made.append(Run(tmp_path / f"record-{len(made)}", *mountpoints, **options))
        return made[-1]

    yield start
    for run in made:
        run.close()


def inode(path: Path | bytes) -> Inode:
    facts = os.stat(path)
    return Inode(facts.st_dev, facts.st_ino)


def names(writes: ForeignWrites, root: Path) -> set[str]:
    return {os.path.relpath(origin.path, root) for origin in writes.foreign_only.values()}


def shell(script: str, *arguments: str | Path) -> None:
    """Done by somebody else."""
    subprocess.run(["sh", "-c", script, "sh", *arguments], check=True)


def holding(program: str, path: Path) -> subprocess.Popen[bytes]:
    child = subprocess.Popen([sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout
    assert child.stdout.readline() == b"ready\n"
    return child


def end(*children: subprocess.Popen[bytes]) -> None:
    for child in children:
        child.kill()
        child.communicate()


def test_every_way_to_write(filesystem: LoopFilesystem, start_run: StartRun) -> None:
    root = filesystem.path
    (root / "log").write_text("before\n")
    run = start_run(root)
    assert run.start["available"]
    assert run.start["reason"] == ""
    assert run.pid not in run.start["members"]
    run.shell('echo x >"$1/ours"; cp "$1/ours" "$1/copied"; mv "$1/copied" "$1/moved"', root)
    shell('echo x >"$1/mail"; cp "$1/mail" "$1/upload"; echo more >>"$1/log"', root)
    shell('echo x >"$1/.temporary"; mv "$1/.temporary" "$1/renamed"', root)
    (root / "python").write_text("")
    held, mapped = holding(HOLDS, root / "held"), holding(MAPS, root / "mapped")
    writes = run.stop()
    end(held, mapped)
    assert writes.complete, writes.reason
    found = names(writes, root)
    assert found - {".temporary", "renamed"} == {"mail", "upload", "log", "python", "held", "mapped"}
    assert len(found) == 7  # one file under the name that it had when its event was read
    assert writes.shared == {}
    assert writes.foreign_only[inode(root / "renamed")].comm == "sh"
    # One that has ended already is known by the name that it was forked with.
    assert writes.foreign_only[inode(root / "upload")].comm in ("cp", "sh")
    own = writes.foreign_only[inode(root / "python")]
    assert (own.pid, own.how) == (os.getpid(), "closed")
    assert {writes.foreign_only[inode(root / name)].how for name in ("held", "mapped")} == {"open"}
    assert inode(root / "ours") not in writes.foreign_only
    assert run.stopped["stopped"]


@pytest.mark.parametrize("cgroup", ["cgroup", "no-cgroup"])
def test_nothing_of_the_run_is_foreign(filesystem: LoopFilesystem, start_run: StartRun, cgroup: str) -> None:
    """Hundreds of children that end at once, also in another session, orphaned, without environment."""
    root = filesystem.path
    run = start_run(root, **({"FOREIGN_NO_CGROUP": "1"} if cgroup == "no-cgroup" else {}))
    run.shell('i=0; while [ $i -lt 300 ]; do sh -c "echo x >$1/a$i"; i=$((i+1)); done', root)
    run.shell('i=0; while [ $i -lt 20 ]; do setsid env -i sh -c "echo x >$1/b$i" & i=$((i+1)); done', root)
    run.shell('(setsid env -i sh -c "sleep 0.2; echo x >$1/orphan" &)', root)
    wait_for((root / "orphan").exists)
    writes = run.stop()
    assert writes.complete, writes.reason
    assert writes.foreign_only == writes.shared == {}


def test_shared_files(filesystem: LoopFilesystem, start_run: StartRun) -> None:
    root = filesystem.path
    run = start_run(root)
    append = 'echo x >>"$1"'
    run.shell(append, root / "run-first")
    shell(append, root / "run-first")
    shell(append, root / "run-last")
    run.shell(append, root / "run-last")
    held = holding(HOLDS, root / "run-too")
    run.shell(append, root / "run-too")
    writes = run.stop()
    end(held)
    assert writes.foreign_only == {}
    assert set(writes.shared) == {inode(root / name) for name in ("run-first", "run-last", "run-too")}


def test_an_inode_number_that_is_used_again(filesystem: LoopFilesystem, start_run: StartRun) -> None:
    root = filesystem.path
    run = start_run(root)
    run.shell('echo x >"$1"; rm "$1"', root / "ours")
    (root / "theirs").write_text("x")
    (root / "gone").write_text("x")
    number = inode(root / "gone")
    time.sleep(0.1)
    (root / "gone").unlink()
    run.shell('for n in 1 2 3 4 5 6 7 8; do echo x >"$1$n"; done', root / "new")
    writes = run.stop()
    assert inode(root / "theirs") in writes.foreign_only
    taken = number in {inode(path) for path in root.glob("new*")}
    assert taken is (number not in writes.foreign_only)
    assert writes.shared == {}


def test_names(filesystem: LoopFilesystem, start_run: StartRun) -> None:
    root = filesystem.path
    run = start_run(root)
    odd = os.fsencode(root) + b"/new\nline \xff\xfe (deleted)"
    with open(odd, "w") as file:
        file.write("x")
    writes = run.stop()
    assert os.fsencode(writes.foreign_only[inode(odd)].path) == odd


def test_subvolumes_and_a_filesystem_named_twice(btrfs: LoopFilesystem, start_run: StartRun) -> None:
    root = btrfs.path
    subprocess.run(["btrfs", "-q", "subvolume", "create", root / "before"], check=True)
    run = start_run(root, root / "before")
    subprocess.run(["btrfs", "-q", "subvolume", "create", root / "since"], check=True)
    held = [holding(HOLDS, root / name / "held") for name in (".", "before", "since")]
    for name in ("before", "since"):
        (root / name / "file").write_text("x")
        run.shell('echo x >"$1/ours"', root / name)
    writes = run.stop()
    end(*held)
    assert names(writes, root) == {"held", "before/held", "since/held", "before/file", "since/file"}
    assert inode(root / "since/file") in writes.foreign_only


def test_what_is_not_watched_or_is_ours(
    ext4: LoopFilesystem, xfs: LoopFilesystem, start_run: StartRun, tmp_path: Path
) -> None:
    (ext4.path / ".snapbreaker").mkdir()
    run = start_run(ext4.path)
    held = [holding(HOLDS, path / "held") for path in (xfs.path, tmp_path)]
    (xfs.path / "other").write_text("x")
    (ext4.path / ".snapbreaker/vault").write_text("x")
    with open(ext4.path / "deleted", "w"):
        (ext4.path / "deleted").unlink()
    (ext4.path / "dir").mkdir()
    writes = run.stop()
    end(*held)
    assert writes.complete
    assert writes.foreign_only == {}


def test_fifos_and_readers_do_not_hold_it_up(ext4: LoopFilesystem, start_run: StartRun) -> None:
    run = start_run(ext4.path)
    run.shell('mkfifo "$1"; cat "$1" >"$2" & echo x >"$1"; wait', ext4.path / "fifo", ext4.path / "copy")
    assert (ext4.path / "copy").read_text() == "x\n"
    (ext4.path / "after").write_text("x")
    writes = run.stop()
    assert writes.complete, writes.reason
    assert names(writes, ext4.path) == {"after"}


def test_marker_of_a_job(ext4: LoopFilesystem, start_run: StartRun) -> None:
    """As at(1) starts it: from a daemon, in the environment of the run. Its children count too, also when gone."""
    run = start_run(ext4.path)
    job = f'sh -c "echo x >{ext4.path}/job"; env -i sh -c "echo x >{ext4.path}/child"; exit 0'
    daemon = 'echo atd >/proc/$$/comm; for marker; do env "$marker" sh -c "$0"; done; echo ready; read -r line'
    markers = [f"{MARKER}={marker}" for marker in (run.start["run_id"], "another")]
    atd = subprocess.Popen(["sh", "-c", daemon, job, *markers], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert atd.stdout
    assert atd.stdout.readline() == b"ready\n"
    assert run.stop().foreign_only == {}
    end(atd)


UNITS = {
    "test.slice/old.service": True,
    "test.slice/new.service": False,
    "test.slice/postgresql@15-main.service/sub": False,
    "test.slice/ssh@3-10.0.0.1:22-10.0.0.2:4711.service": True,
    "test.slice/upload@7-1234-33.service": True,
    "test.slice/session-7.scope": True,
    "test.slice/user@0.service/app.slice/editor.service": True,
    "test.slice/old.service/app.slice/started.service": False,
}


@pytest.fixture
def units() -> Iterator[Callable[[str], Path]]:
    """Makes cgroups as systemd does for its units."""
    hierarchy = Hierarchy.find()
    if hierarchy is None:
        pytest.skip("no cgroup v2 is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
    base = Path(hierarchy.mountpoint, f"foreign-test-{os.getpid()}.slice")

    def make(name: str) -> Path:
        (base / name).mkdir(parents=True, exist_ok=True)
        return base / name

    yield make
    for directory, _, _ in os.walk(base, topdown=False):
        os.rmdir(directory)


def test_units(ext4: LoopFilesystem, start_run: StartRun, units: Callable[[str], Path]) -> None:
    units("test.slice/old.service")
    run = start_run(ext4.path)
    script = 'echo $$ >"$1/cgroup.procs"; for n in 1 2 3; do sh -c "echo x >$2.$n"; done'
    for number, name in enumerate(UNITS):
        shell(script, units(name), ext4.path / f"unit{number}")
    writes = run.stop()
    assert writes.complete, writes.reason
    for number, (name, foreign) in enumerate(UNITS.items()):
        origin = writes.foreign_only.get(inode(ext4.path / f"unit{number}.1"))
        assert (origin is not None) is foreign, name
        assert origin is None or origin.unit in name


def test_scope_that_the_run_moved_to(
    ext4: LoopFilesystem, start_run: StartRun, units: Callable[[str], Path]
) -> None:
    run = start_run(ext4.path)
    run.shell('echo $$ >"$1/cgroup.procs"; env -i sh -c "echo x >$2"', units("session-9.scope"), ext4.path / "f")
    assert run.stop().foreign_only == {}


def test_after_the_death_of_the_worker(filesystem: LoopFilesystem, start_run: StartRun) -> None:
    root = filesystem.path
    run = start_run(root)
    (root / "mail").write_text("x")
    run.shell('echo x >"$1"', root / "ours")
    held = holding(HOLDS, root / "held")
    run.worker.kill()
    run.worker.wait()
    writes = read(run.record, wait=2)
    end(held)
    assert writes.complete, writes.reason
    assert names(writes, root) == {"mail", "held"}
    cgroup = run.start["cgroup"]
    if cgroup:
        Path(cgroup, "cgroup.kill").write_text("1")
        wait_for(lambda: not Path(cgroup, "cgroup.procs").read_text())
        os.rmdir(cgroup)


def test_without_its_end_it_is_not_complete(ext4: LoopFilesystem, start_run: StartRun) -> None:
    run = start_run(ext4.path)
    (ext4.path / "mail").write_text("x")
    wait_for(lambda: "mail" in (run.record / "foreign.log").read_text())
    os.kill(run.pid, signal.SIGKILL)
    run.shell('echo x >"$1"', ext4.path / "goes-on")
    writes = run.stop()
    assert not writes.complete
    assert "ended before" in writes.reason
    assert names(writes, ext4.path) == {"mail"}


def test_signals_and_hang(ext4: LoopFilesystem, start_run: StartRun) -> None:
    run = start_run(ext4.path)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        os.kill(run.pid, number)
    (ext4.path / "mail").write_text("x")
    wait_for(lambda: "mail" in (run.record / "foreign.log").read_text())
    os.kill(run.pid, signal.SIGSTOP)
    writes = run.stop()
    assert not run.stopped["stopped"]
    assert run.stopped["seconds"] < 4
    assert not writes.complete


def test_without_permission(ext4: LoopFilesystem, start_run: StartRun) -> None:
    run = start_run(ext4.path, before=("setpriv", "--bounding-set=-sys_admin"))
    assert not run.start["available"]
    assert "CAP_SYS_ADMIN" in run.start["reason"]
    run.shell("true")
    writes = run.stop()
    assert not writes.complete
    assert writes.reason == run.start["reason"]


def test_a_log_that_was_cut_off(tmp_path: Path, ext4: LoopFilesystem, start_run: StartRun) -> None:
    run = start_run(ext4.path)
    (ext4.path / "mail").write_text("x")
    assert run.stop().complete
    log = run.record / "foreign.log"
    data = log.read_bytes()
    log.write_bytes(data[:-3])
    writes = read(run.record)
    assert not writes.complete
    assert names(writes, ext4.path) == {"mail"}
    log.write_bytes(b"\0" * 100)
    assert "damaged" in read(run.record).reason
    assert "not watched" in read(tmp_path).reason


def told_of_forks() -> bool:
    """Whether the kernel tells of them here."""
    events = ForkEvents()
    shell("true & wait")
    told = bool(events.take())
    events.close()
    return told


@pytest.mark.parametrize("environment", [{}, {"FOREIGN_NO_FORKS": "1"}], ids=["forks", "no-forks"])
def test_short_lived_foreign_writers(
    filesystem: LoopFilesystem, start_run: StartRun, environment: dict[str, str]
) -> None:
    """Each of 300 files by a process of its own that ends at once, and whose parent does so too."""
    root = filesystem.path
    run = start_run(root, **environment)
    shell('i=0; while [ $i -lt 300 ]; do sh -c "sh -c \\"echo x >$1/$i\\"; :"; i=$((i+1)); done', root)
    writes = run.stop()
    assert writes.complete, writes.reason
    assert len(writes.foreign_only) + writes.unjudged == 300
    assert len(writes.foreign_only) > 0
    if not environment and told_of_forks():
        assert writes.unjudged == 0


def test_a_full_store(filesystem: LoopFilesystem, make_filesystem: MakeFilesystem, start_run: StartRun) -> None:
    """The log cannot grow: the run goes on, and what is in it does not count as all."""
    store = make_filesystem("ext4", size=16 << 20)
    run = Run(store.path / "record", filesystem.path)
    shell('head -c 32M /dev/zero >"$1" 2>/dev/null || :', store.path / "filler")
    for number in range(100):
        (filesystem.path / f"a-name-that-takes-some-room-{number}").write_text("x")
    run.shell('echo x >"$1"', filesystem.path / "goes-on")
    writes = run.stop()
    run.close()
    assert not writes.complete
    assert writes.reason
