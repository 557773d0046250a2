"""Runs of real commands under the monitor: pipes."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fs.processes import Watcher, wait_for, watch
from tests.lab.watch import FAULT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes cgroups: run as root")
both = pytest.mark.parametrize("use_cgroup", [True, False], ids=["cgroup", "no-cgroup"])

# Everything that a process can do to get away, then an error, then on and on.
ESCAPES = """
trap '' TERM INT HUP
setsid sh -c 'trap "" TERM; while :; do sleep 0.01; done' &
(setsid sh -c '(trap "" TERM; exec setsid sleep 1000) &' &)
nohup sleep 1001 &
sh -c 'kill -STOP $$; sleep 1002' &
sleep 0.3
echo before
echo 'ERROR: migration 42 failed'
while :; do echo after; sleep 0.01; done
"""

BOMB = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NPROC, (150, 150))
os.setuid(54321)
print("ERROR: bomb", flush=True)
while True:
    try:
        os.fork()
    except OSError:
        pass
"""

PTRACED = """
import ctypes, os, time
libc = ctypes.CDLL(None)
child = os.fork()
if child == 0:
    libc.ptrace(0, 0, 0, 0)
    os.kill(os.getpid(), 19)
    time.sleep(1000)
os.waitpid(child, 0)
zombie = os.fork()
if zombie == 0:
    os._exit(0)
time.sleep(0.1)
print("ERROR: traced", flush=True)
time.sleep(1000)
"""


def test_good_command(tmp_path: Path) -> None:
    found = watch(tmp_path, "sh", "-c", "echo out; echo err >&2")
    assert (found["issue"], found["status"], found["left"]) == (None, 0, [])
    assert (found["stdout"], found["stderr"]) == (b"out\n", b"err\n")
    assert found["lines"] == {"stdout": 1, "stderr": 1}


@both
def test_nothing_escapes(tmp_path: Path, use_cgroup: bool) -> None:
    found = watch(tmp_path, "sh", "-c", ESCAPES, use_cgroup=use_cgroup)
    assert found["issue"]["line"] == "ERROR: migration 42 failed"
    assert found["frozen"] or not use_cgroup  # without one, a busy machine may not stop them all in 50 ms
    assert found["before"] == ["before", "ERROR: migration 42 failed"]
    assert found["killed"] >= 5
    assert found["survivors"] == []
    assert found["dead"] < 2


@both
def test_fork_bomb(tmp_path: Path, use_cgroup: bool) -> None:
    found = watch(tmp_path, sys.executable, "-c", BOMB, use_cgroup=use_cgroup)
    assert found["issue"]["line"] == "ERROR: bomb"
    assert found["survivors"] == []
    wait_for(lambda: not _processes_of(54321))


@both
def test_traced_and_zombie_children(tmp_path: Path, use_cgroup: bool) -> None:
    found = watch(tmp_path, sys.executable, "-c", PTRACED, use_cgroup=use_cgroup)
    assert found["issue"]["line"] == "ERROR: traced"
    assert found["survivors"] == []


@both
@pytest.mark.parametrize(
    "prefix",
    [
        ["su", "-", "nobody", "-s", "/bin/sh", "-c"],
        ["runuser", "-u", "nobody", "--", "sh", "-c"],
        ["sudo", "-u", "nobody", "sh", "-c"],
    ],
    ids=lambda prefix: prefix[0],
)
def test_other_users(tmp_path: Path, prefix: list[str], use_cgroup: bool) -> None:
    if shutil.which(prefix[0]) is None:
        pytest.skip(f"apt-get install {prefix[0]}")
    script = "(setsid sleep 1000 &); echo ERROR: as $(id -un); sleep 1001"
    found = watch(tmp_path, *prefix, script, use_cgroup=use_cgroup)
    assert found["issue"]["line"] == "ERROR: as nobody"
    assert found["survivors"] == []


def test_nothing_runs_on_after_an_internal_error(tmp_path: Path) -> None:
    """Here: a sink that fails in the middle of the run."""
    argv = ["sh", "-c", f"(setsid sleep 1000 &); echo {FAULT}; sleep 1001"]
    assert watch(tmp_path, *argv)["survivors"] == []


def test_command_makes_nested_cgroups(tmp_path: Path) -> None:
    script = """
    own=$(sed -n 's/^0:://p' /proc/self/cgroup); mount=$(awk '$0 ~ / - cgroup2 / {print $5}' /proc/self/mountinfo)
    mkdir -p "$mount$own/a/b"; sh -c "echo \\$\\$ > '$mount$own/a/b/cgroup.procs'; exec sleep 1000" &
    sleep 0.2; echo ERROR; sleep 1000"""
    found = watch(tmp_path, "sh", "-c", script)
    assert found["issue"]["line"] == "ERROR"
    assert found["killed"] >= 2
    assert found["survivors"] == []


def test_moved_out_of_the_cgroup_is_still_a_descendant(tmp_path: Path) -> None:
    script = """
    mount=$(awk '$0 ~ / - cgroup2 / {print $5}' /proc/self/mountinfo)
    (setsid sh -c "echo \\$\\$ > '$mount/cgroup.procs'; trap '' TERM; while :; do :; done" &)
    sleep 0.2; echo ERROR; sleep 1000"""
    found = watch(tmp_path, "sh", "-c", script)
    assert found["killed"] >= 2
    assert found["survivors"] == []


@both
def test_exit_status(tmp_path: Path, use_cgroup: bool) -> None:
    found = watch(tmp_path, "sh", "-c", "sleep 1000 & exit 3", use_cgroup=use_cgroup)
    assert found["issue"]["type"] == "EXIT"
    assert (found["issue"]["status"], found["status"], found["survivors"]) == (3, 3, [])


def test_death_by_signal(tmp_path: Path) -> None:
    found = watch(tmp_path, "sh", "-c", "kill -SEGV $$")
    assert found["issue"]["reason"] == "the command was killed by SIGSEGV"
    assert (found["signal"], found["status"]) == (signal.SIGSEGV, None)


def test_line_explains_more_than_status(tmp_path: Path) -> None:
    found = watch(tmp_path, "sh", "-c", "echo 'ERROR: why' >&2; exit 3")
    assert (found["issue"]["line"], found["issue"]["source"]) == ("ERROR: why", "stderr")


def test_last_line_without_line_feed(tmp_path: Path) -> None:
    found = watch(tmp_path, "printf", "fine\nERROR at the end")
    assert found["issue"]["line"] == "ERROR at the end"


def test_silence(tmp_path: Path) -> None:
    found = watch(tmp_path, "sh", "-c", "echo one; sleep 1000", idle=0.4)
    assert (found["issue"]["type"], found["issue"]["rule"]) == ("TIMEOUT", "idle")
    assert found["issue"]["reason"] == "no output for 0.4 s"
    assert 0.4 <= found["seconds"] < 30


def test_output_on_any_stream_ends_the_silence(tmp_path: Path) -> None:
    script = "echo one; for i in 1 2 3 4 5; do sleep 0.3; echo $i >&2; done"
    assert watch(tmp_path, "sh", "-c", script, idle=1.2)["issue"] is None


def test_timeout_of_the_whole_run(tmp_path: Path) -> None:
    found = watch(tmp_path, "sh", "-c", "while :; do echo .; sleep 0.1; done", timeout=0.5)
    assert (found["issue"]["type"], found["issue"]["rule"]) == ("TIMEOUT", "timeout")


def test_grace_lets_sigterm_work(tmp_path: Path) -> None:
    script = f"trap 'echo bye > {tmp_path}/bye; exit' TERM; echo ERROR; while :; do sleep 0.01; done"
    found = watch(tmp_path, "sh", "-c", script, grace=30)
    assert (tmp_path / "bye").read_text() == "bye\n"
    assert found["survivors"] == []
    assert found["seconds"] < 30


@both
def test_grace_ends(tmp_path: Path, use_cgroup: bool) -> None:
    script = "trap '' TERM; echo ERROR; while :; do sleep 0.01; done"
    found = watch(tmp_path, "sh", "-c", script, grace=0.3, use_cgroup=use_cgroup)
    assert found["survivors"] == []
    assert 0.3 <= found["seconds"] < 30


def test_observe_halts_nothing(tmp_path: Path) -> None:
    found = watch(tmp_path, "sh", "-c", "echo ERROR: 1; sleep 0.4; echo ERROR: 2; exit 7", observe=True, idle=0.2)
    assert (found["issue"], found["status"]) == (None, 7)
    types = [issue["type"] for issue in found["issues"]]
    assert types[0] == "ERROR"
    assert set(types) == {"ERROR", "TIMEOUT", "EXIT"}
    assert found["stdout"] == b"ERROR: 1\nERROR: 2\n"


def test_daemon_that_holds_the_output_open(tmp_path: Path) -> None:
    found = watch(tmp_path, "sh", "-c", "sleep 1000 & echo done")
    assert (found["issue"], found["status"], found["left"]) == (None, 0, ["sleep"])
    assert found["seconds"] < 30


def test_daemon_that_fails_at_once_is_judged(tmp_path: Path) -> None:
    found = watch(tmp_path, "sh", "-c", "(sleep 0.5; echo ERROR: daemon; sleep 1000) & echo started")
    assert found["issue"]["line"] == "ERROR: daemon"
    assert found["survivors"] == []


def test_octets_pass_unchanged(tmp_path: Path) -> None:
    """Invalid UTF-8, NUL, no line feed at the end; each stream by itself."""
    blocks = [os.urandom(1 << 20).replace(b"E", b"e") for _ in range(2)]
    found = _pass_on(tmp_path, blocks)
    assert [_sum(found["stdout"]), _sum(found["stderr"])] == [_sum(block) for block in blocks]


def test_text_passes_at_10_megabytes_a_second(tmp_path: Path) -> None:
    """Of processor time, so that it holds on a busy machine too: sha256 of what passed included."""
    blocks = [b"Unpacking package (1.2-3) over (1.2-2) \xff ...\n" * 500_000, b"err\n" * 100_000]
    before = os.times()
    found = _pass_on(tmp_path, blocks)
    after = os.times()
    used = sum(after[:4]) - sum(before[:4])
    assert [_sum(found["stdout"]), _sum(found["stderr"])] == [_sum(block) for block in blocks]
    assert sum(found["octets"].values()) / used > 10e6


def _pass_on(directory: Path, blocks: list[bytes]) -> dict[str, Any]:
    for name, block in zip(("out", "err"), blocks, strict=True):
        (directory / name).write_bytes(block)
    found = watch(directory, "sh", "-c", f"cat {directory}/err >&2 & cat {directory}/out; wait")
    assert found["issue"] is None
    return found


def test_slow_reader_slows_the_command(tmp_path: Path) -> None:
    """Nothing is lost, memory stays bounded, and waiting for the reader is not silence."""
    size = 4 << 20
    watcher = Watcher(
        tmp_path,
        {"argv": ["head", "-c", str(size), "/dev/zero"], "idle": 0.5},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    time.sleep(1.5)
    assert watcher.process.poll() is None
    assert len(watcher.process.communicate()[0]) == size
    assert watcher.finish()["issue"] is None


def test_halt_does_not_wait_for_the_reader(tmp_path: Path) -> None:
    script = "head -c 4000000 /dev/zero | tr '\\0' '\\n' & sleep 0.5; echo ERROR >&2; sleep 1000"
    watcher = Watcher(
        tmp_path,
        {"argv": ["sh", "-c", script]},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    found = watcher.finish(20)
    assert found["issue"]["source"] == "stderr"
    assert found["dead"] < 2
    assert found["dropped"]["stdout"] > 0
    watcher.process.communicate()


def test_reader_that_goes_away(tmp_path: Path) -> None:
    argv = ["sh", "-c", f"sleep 0.5; seq 100000; echo end > {tmp_path}/end"]
    watcher = Watcher(
        tmp_path,
        {"argv": argv, "on_hangup": "continue"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert watcher.process.stdout
    watcher.process.stdout.close()
    found = watcher.finish()
    assert (found["issue"], found["status"]) == (None, 0)
    assert (tmp_path / "end").exists()
    assert found["dropped"]["stdout"] == found["octets"]["stdout"]


def test_standard_streams_closed(tmp_path: Path) -> None:
    script = f"exec 0<&- 1>&- 2>&-; exec {sys.executable} -m tests.lab.watch {tmp_path}/r "
    options = '{"argv": ["sh", "-c", "echo out; echo ERROR: err >&2"]}'
    root = Path(__file__).parents[2]
    subprocess.run(["sh", "-c", f"{script}'{options}'"], cwd=root, check=True, timeout=30)
    assert '"line": "ERROR: err"' in (tmp_path / "r").read_text()


@both
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupts(tmp_path: Path, number: int, use_cgroup: bool) -> None:
    argv = ["sh", "-c", "trap '' INT TERM HUP; while :; do sleep 0.01; done"]
    watcher = Watcher(tmp_path, {"argv": argv, "use_cgroup": use_cgroup}, stdin=subprocess.DEVNULL)
    watcher.tree()
    watcher.process.send_signal(number)
    found = watcher.finish()
    assert (found["issue"]["type"], found["issue"]["signal"]) == ("INTERRUPTED", number)
    assert found["survivors"] == []


def test_nohup_stays_nohup(tmp_path: Path) -> None:
    watcher = Watcher(
        tmp_path,
        {"argv": ["sh", "-c", "grep SigIgn /proc/self/status; sleep 0.5"]},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    watcher.tree()
    watcher.process.send_signal(signal.SIGHUP)
    out = watcher.process.communicate()[0]
    assert int(out.split()[1], 16) == 1 << (signal.SIGHUP - 1)
    assert watcher.finish()["issue"] is None


def test_command_gets_our_standard_input(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, {"argv": ["cat"]}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert watcher.process.communicate(b"typed\n")[0] == b"typed\n"
    assert watcher.finish()["status"] == 0


def test_stopped_command_is_not_silent(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, {"argv": ["sh", "-c", "sleep 0.2; echo end"], "idle": 1}, stdin=subprocess.DEVNULL)
    pid = watcher.tree()["root"] or []
    os.kill(pid[0], signal.SIGSTOP)
    time.sleep(1.5)
    os.kill(pid[0], signal.SIGCONT)
    assert watcher.finish()["issue"] is None


def test_descriptors_of_the_caller_are_passed_on_and_ours_are_not(tmp_path: Path) -> None:
    read, write = os.pipe()
    script = f"ls /proc/self/fd; echo told >&{write}"
    watcher = Watcher(
        tmp_path,
        {"argv": ["bash", "-c", script]},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        pass_fds=[write],
    )
    os.close(write)
    out = watcher.process.communicate()[0]
    assert sorted(map(int, out.split())) == [0, 1, 2, 3, write] or sorted(map(int, out.split()))[:3] == [0, 1, 2]
    assert len(out.split()) == 5  # and the one that ls reads
    assert os.read(read, 10) == b"told\n"
    os.close(read)


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["no-such-command-at-all"], "CommandNotFound"),
        (["/no/such/file"], "CommandNotFound"),
        (["/etc/passwd"], "CommandNotExecutable"),
        (["/tmp"], "CommandNotExecutable"),
    ],
)
def test_command_that_cannot_be_started(tmp_path: Path, argv: list[str], error: str) -> None:
    assert watch(tmp_path, *argv)["error"] == error


def _sum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _processes_of(uid: int) -> list[str]:
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == uid:
                found.append(name)
        except FileNotFoundError:
            continue
    return found
