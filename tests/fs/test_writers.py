"""Who writes, and holding them still: real processes, a real cgroup, real namespaces."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from snapbreaker.errors import CheckpointError
from snapbreaker.files.live import LiveTree
from snapbreaker.freeze import frozen
from snapbreaker.linux.process import process
from snapbreaker.monitor.cgroup import Cgroup
from snapbreaker.volumes import discover
from snapbreaker.writers import Inode, Scan, Writer
from tests.lab.loopfs import LoopFilesystem

HOLDS = """
import os, sys
file = open(os.fsencode(sys.argv[1]), "ab")
print("ready", flush=True)
sys.stdin.read()
"""
READS = HOLDS.replace('"ab"', '"rb"')
MAPS = """
import mmap, os, sys
fd = os.open(os.fsencode(sys.argv[1]), os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 8192)
memory = mmap.mmap(fd, 8192)
os.close(fd)
print("ready", flush=True)
sys.stdin.read()
"""
LEADERLESS = """
import ctypes, os, sys, threading
file = open(os.fsencode(sys.argv[1]), "ab")
def hold():
    print("ready", flush=True)
    while os.read(0, 1):
        pass
    os._exit(0)
threading.Thread(target=hold).start()
ctypes.CDLL(None).pthread_exit(None)
"""
COUNTS = """
import sys
file = open(sys.argv[1], "wb", buffering=0)
print("ready", flush=True)
n = 0
while True:
    n += 1
    file.seek(0)
    file.write(b"%d" % n)
"""


@contextmanager
def running(program: str, *arguments: str | bytes | Path, before: list[str] | None = None) -> Iterator[int]:
    """A Python program that says when it is ready; yields its pid."""
    command = [*(before or []), sys.executable, "-c", program, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        try:
            yield child.pid
        finally:
            child.kill()


def scan_of(root: Path, keep: list[str] | None = None, content: list[str] | None = None) -> Scan:
    scope = discover([str(root)], keep or [], [], content or [])
    volume, policy = scope.volumes[0], scope.policies[0]

    def locate(inodes: Collection[Inode]) -> Mapping[Inode, bytes]:
        with LiveTree(volume.root, policy) as tree:
            return {Inode(one.dev, one.ino): one.path for one in tree.walk() if Inode(one.dev, one.ino) in inodes}

    return Scan(volume, policy, locate)


def found(scan: Callable[[], list[Writer]]) -> dict[int, tuple[bytes, ...]]:
    return {writer.pid: writer.paths for writer in scan()}


def state(pid: int) -> str:
    one = process(pid)
    return one.state if one else ""


def test_descriptors_and_mappings(filesystem: LoopFilesystem) -> None:
    root = filesystem.path
    (root / "dir").mkdir()
    odd = os.fsencode(root) + b"/dir/odd\n\xff (deleted)"
    (root / "read").write_text("")
    scan = scan_of(root)
    with running(HOLDS, odd) as holder, running(MAPS, root / "mapped") as mapper, running(READS, root / "read"):
        writers = {writer.pid: writer for writer in scan()}
        assert set(writers) == {holder, mapper}
        assert writers[holder].paths == (b"dir/odd\n\xff (deleted)",)
        assert writers[holder].mapped == ()
        assert writers[mapper].paths == writers[mapper].mapped == (b"mapped",)
    assert found(scan) == {}


def test_threads_whose_leader_has_ended(ext4: LoopFilesystem) -> None:
    with running(LEADERLESS, ext4.path / "file") as pid:
        for _ in range(100):
            if state(pid) == "Z":
                break
            time.sleep(0.02)
        assert found(scan_of(ext4.path)) == {pid: (b"file",)}


def test_kept_grown_and_vault_files_do_not_count(ext4: LoopFilesystem) -> None:
    root = ext4.path
    for name in ("kept", "log", ".snapbreaker"):
        (root / name).mkdir()
    scan = scan_of(root, keep=[str(root / "kept")], content=[str(root / "log")])
    with running(HOLDS, root / "kept/a"), running(HOLDS, root / "log/b"), running(HOLDS, root / ".snapbreaker/c"):
        assert found(scan) == {}


def test_hard_links_and_deleted_files(filesystem: LoopFilesystem) -> None:
    root = filesystem.path
    (root / "scope").mkdir()
    (root / "outside").write_text("")
    os.link(root / "outside", root / "scope/inside")
    (root / "scope/renamed").write_text("")
    scan = scan_of(root / "scope")
    with running(HOLDS, root / "outside") as linked, running(HOLDS, root / "scope/gone") as gone:
        (root / "scope/gone").unlink()
        assert found(scan) == {linked: (b"inside",)}
        os.link(root / "scope/inside", root / "scope/other")
        assert gone not in found(scan)
    with running(HOLDS, root / "scope/inside") as pid:
        (root / "scope/inside").unlink()
        assert found(scan_of(root / "scope")) == {pid: (b"other",)}


def test_other_namespaces_roots_and_bind_mounts(ext4: LoopFilesystem) -> None:
    """The same file under another name: in a mount namespace of its own, through a bind mount, in a chroot."""
    root = ext4.path
    (root / "scope/data").mkdir(parents=True)
    (root / "elsewhere").mkdir()
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    places = [str(root / "scope"), str(root / "elsewhere")]
    unshared = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *places]
    with running(HOLDS, root / "elsewhere/data/file", before=unshared) as pid:
        assert not os.path.exists(root / "elsewhere/data")
        assert found(scan_of(root / "scope")) == {pid: (b"data/file",)}
    outside = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", "/dev/shm", places[1]]
    with running(HOLDS, root / "elsewhere/" / f"sb-writer-{os.getpid()}", before=outside):
        assert found(scan_of(root / "scope")) == {}
    os.unlink(f"/dev/shm/sb-writer-{os.getpid()}")


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    made = Cgroup.create(f"snapbreaker-test-{os.getpid()}")
    if made is None:
        pytest.skip("no cgroup v2 that can be written to: mount -t cgroup2 none /sys/fs/cgroup")
    yield made
    made.thaw()
    made.kill()
    made.wait_empty(5)
    assert made.remove()


def enter(cgroup: Cgroup, pid: int) -> None:
    Path(cgroup.path, "cgroup.procs").write_text(str(pid))


def test_a_process_in_our_own_cgroup_is_stopped(ext4: LoopFilesystem) -> None:
    path = ext4.path / "file"
    with running(COUNTS, path) as pid:
        with frozen(scan_of(ext4.path), str(ext4.path)) as held:
            assert [writer.pid for writer in held.writers] == [pid]
            assert state(pid) == "T"
            before = path.read_bytes()
            time.sleep(0.05)
            assert path.read_bytes() == before
        assert held.seconds > 0.05
        goes_on(path)


def goes_on(path: Path) -> None:
    before = path.read_bytes()
    deadline = time.monotonic() + 5
    while path.read_bytes() == before:
        assert time.monotonic() < deadline, "it was not let go"
        time.sleep(0.01)


def test_a_cgroup_of_its_own_is_frozen_as_a_whole(ext4: LoopFilesystem, cgroup: Cgroup) -> None:
    path = ext4.path / "file"
    with running(COUNTS, path) as pid:
        enter(cgroup, pid)
        with frozen(scan_of(ext4.path), str(ext4.path)) as held:
            assert held.cgroups == [cgroup.path]
            assert held.stopped == []
            assert "frozen 1" in Path(cgroup.path, "cgroup.events").read_text()
            assert state(pid) != "T"
        goes_on(path)


def test_who_was_stopped_before_stays_so(ext4: LoopFilesystem, cgroup: Cgroup) -> None:
    with running(COUNTS, ext4.path / "a") as stopped, running(COUNTS, ext4.path / "b") as in_cgroup:
        os.kill(stopped, signal.SIGSTOP)
        enter(cgroup, in_cgroup)
        assert cgroup.freeze(5)
        while state(stopped) != "T":
            time.sleep(0.001)
        with frozen(scan_of(ext4.path), str(ext4.path)) as held:
            assert {writer.pid for writer in held.writers} == {stopped, in_cgroup}
        assert state(stopped) == "T"
        assert "frozen 1" in Path(cgroup.path, "cgroup.events").read_text()


def test_all_are_let_go_after_an_exception(ext4: LoopFilesystem, cgroup: Cgroup) -> None:
    with running(COUNTS, ext4.path / "a") as one, running(COUNTS, ext4.path / "b") as other:
        enter(cgroup, other)
        with suppress(KeyboardInterrupt), frozen(scan_of(ext4.path), str(ext4.path)):
            assert state(one) == "T"
            raise KeyboardInterrupt
        goes_on(ext4.path / "a")
        goes_on(ext4.path / "b")


def test_all_are_let_go_when_we_are_killed(ext4: LoopFilesystem, cgroup: Cgroup) -> None:
    scan = scan_of(ext4.path)
    with running(COUNTS, ext4.path / "a") as one, running(COUNTS, ext4.path / "b") as other:
        enter(cgroup, other)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            with suppress(BaseException), frozen(scan, str(ext4.path)):
                os.write(writing, b"held")
                time.sleep(60)
            os._exit(1)
        os.close(writing)
        assert os.read(reading, 4) == b"held"
        os.close(reading)
        assert state(one) == "T"
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        goes_on(ext4.path / "a")
        goes_on(ext4.path / "b")


def test_helper_ends_and_nobody_is_left(ext4: LoopFilesystem) -> None:
    with running(COUNTS, ext4.path / "a"):
        before, children = len(os.listdir("/proc/self/fd")), _children()
        with frozen(scan_of(ext4.path), str(ext4.path)):
            pass
        assert len(os.listdir("/proc/self/fd")) == before
        assert _children() == children


def _children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


SPAWNS = """
import os, sys, time
own = open(sys.argv[1] + "/own", "wb")
print("ready", flush=True)
n = 0
while True:
    n += 1
    if os.fork() == 0:
        file = open(sys.argv[1] + "/%d" % (n % 50), "wb")
        time.sleep(0.2)
        os._exit(0)
    time.sleep(0.02)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
"""


def test_those_that_come_meanwhile_are_found(ext4: LoopFilesystem) -> None:
    with running(SPAWNS, ext4.path):
        time.sleep(0.1)
        scan = scan_of(ext4.path)
        with frozen(scan, str(ext4.path)) as held:
            assert set(found(scan)) == {writer.pid for writer in held.writers}
            assert {state(writer.pid) for writer in held.writers} <= {"T"}
    while found(scan):  # the children end by themselves
        time.sleep(0.02)


def test_we_and_our_ancestors_are_never_stopped(ext4: LoopFilesystem) -> None:
    path = ext4.path / "out\nput"
    with open(path, "w"):
        with pytest.raises(CheckpointError, match=r"snapbreaker itself has .*out\\nput open") as caught:
            frozen(scan_of(ext4.path), str(ext4.path)).__enter__()
        assert "--keep" in caught.value.hint
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with open(path, "w"):
                if os.fork():
                    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
            try:
                with frozen(scan_of(ext4.path), str(ext4.path)):
                    pass
            except CheckpointError as error:
                status = 0 if "which started snapbreaker" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_one_that_cannot_be_stopped_is_named(ext4: LoopFilesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in uninterruptible sleep takes no signal: here, the signal is lost on the way."""
    with running(COUNTS, ext4.path / "busy") as pid:
        monkeypatch.setattr("snapbreaker.freeze.send_signal", lambda identity, number: True)
        with pytest.raises(CheckpointError, match=rf"\(pid {pid}\) has .*busy open .*, and it did not stop"):
            frozen(scan_of(ext4.path), str(ext4.path), timeout=0.1).__enter__()
        assert state(pid) in "RSD"
