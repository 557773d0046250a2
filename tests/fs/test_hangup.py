"""Whoever looks on goes away, or does not read: a terminal, a pipe. And who looks on from elsewhere: attach."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests import comparer
from tests.fs.processes import Watcher, descendants, kill_all, wait_for, watch
from tests.lab.loopfs import LoopFilesystem
from tests.lab.tool import REPOSITORY, Tool

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes cgroups: run as root")

# Goes on when the test says so, and says that it has come to its end.
SCRIPT = """
cd {scope}; echo after >config; echo begun; echo begun >&2
while [ ! -e {go} ]; do sleep 0.02; done
seq 20000; echo 'the last line'; echo end >ended
"""


class Run:
    """A run that waits in its middle, with one end of what it writes to in our hand."""

    def __init__(self, tool: Tool, root: Path, go: Path) -> None:
        self.tool, self.root, self.go = tool, root, go
        self.scope = root / "app"
        self.scope.mkdir()
        (self.scope / "config").write_text("before\n")
        self.before = comparer.snapshot(root)

    def start(self, *options: str, **popen: Any) -> subprocess.Popen[bytes]:
        script = SCRIPT.format(scope=self.scope, go=self.go)
        return self.call("run", "--scope", self.scope, *options, "--", "sh", "-c", script, **popen)

    def call(self, *arguments: str | Path, **popen: Any) -> subprocess.Popen[bytes]:
        popen = {"stdin": subprocess.DEVNULL, "env": self.tool.environment, "cwd": REPOSITORY, **popen}
        process: subprocess.Popen[bytes] = subprocess.Popen(self.tool.argv(*arguments), **popen)
        self.tool.started.append(process)
        return process

    def look_on(self, *options: str) -> subprocess.Popen[bytes]:
        """attach, when it has begun to show what was printed so far."""
        process = self.call("attach", *options, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout
        assert select.select([process.stdout], [], [], 30)[0]
        return process

    def begun(self) -> None:
        wait_for(lambda: (self.scope / "config").read_text() == "after\n", 30)

    def on(self) -> None:
        self.go.touch()

    def put_back(self) -> bool:
        return comparer.differences(self.before, comparer.snapshot(self.root)) == []

    def kept(self) -> bool:
        return (self.scope / "ended").exists() and (self.scope / "config").read_text() == "after\n"


@pytest.fixture
def run(tool: Tool, ext4: LoopFilesystem, tmp_path: Path) -> Run:
    return Run(tool, ext4.path, tmp_path / "go")


def login(slave: int) -> None:
    os.login_tty(os.dup(slave))


@pytest.mark.parametrize("how", ["continue", "rollback"])
@pytest.mark.parametrize("pty", ["--pty", "--no-pty"])
def test_the_terminal_hangs_up(run: Run, how: str, pty: str) -> None:
    """As when an SSH session is dropped: the other end of the pty is closed, the kernel sends SIGHUP."""
    master, slave = os.openpty()
    process = run.start(
        pty,
        "--on-hangup",
        how,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        preexec_fn=lambda: login(slave),
    )
    os.close(slave)
    run.begun()
    os.close(master)
    if how == "continue":
        run.on()
        assert process.wait(60) == 0
        assert run.kept()
        told = run.tool.report()
        assert told["exit_code"] == 0
        assert any("it went on without" in text for text in told["warnings"]), told["warnings"]
        attached = run.tool("attach", told["id"])
        assert attached.status == 0
        assert attached.stdout.endswith(b"the last line\r\n" if pty == "--pty" else b"the last line\n")
    else:
        assert process.wait(60) == 128 + signal.SIGHUP
        assert run.put_back()


@pytest.mark.parametrize("how", ["continue", "rollback"])
def test_a_signal_says_that_the_terminal_is_gone(run: Run, how: str) -> None:
    process = run.start("--on-hangup", how, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run.begun()
    process.send_signal(signal.SIGHUP)
    if how == "rollback":
        assert process.wait(60) == 128 + signal.SIGHUP
        assert run.put_back()
        return
    run.on()
    assert process.wait(60) == 0
    assert run.kept()


@pytest.mark.parametrize("how", ["continue", "rollback"])
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_the_reader_of_the_output_goes_away(run: Run, how: str, form: list[str]) -> None:
    """Also before anything more is written: it is noticed by the closed pipe, not by a failed write."""
    process = run.start("--on-hangup", how, *form, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    run.begun()
    assert process.stdout
    process.stdout.close()
    if how == "rollback":
        assert process.wait(60) == 128 + signal.SIGPIPE
        assert run.put_back()
        return
    run.on()
    assert process.wait(60) == 0
    assert run.kept()


def test_a_hangup_during_the_checkpoint_ends_nothing_where_it_is_to_go_on(run: Run) -> None:
    run.on()
    process = run.start("--on-hangup", "continue", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (run.scope / "ended").exists():
        with suppress(ProcessLookupError):
            if list(run.tool.store.glob("*/state.json")):  # from the first moment of its checkpoint on
                process.send_signal(signal.SIGHUP)
        time.sleep(0.01)
    assert process.wait(60) == 0
    assert run.kept()


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_a_run_is_shown_from_elsewhere_from_its_start(run: Run, form: list[str]) -> None:
    process = run.start(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run.begun()
    watching = [run.look_on(*form) for _ in range(2)]
    assert process.poll() is None
    run.on()
    assert process.wait(60) == 0
    for one in watching:
        out, err = one.communicate(timeout=60)
        assert one.returncode == 0, err
        if form:
            assert out.count(b'"event":"finished"') == 1
            assert out.startswith(b'{"event":"start"')
        else:
            assert out == b"begun\n" + b"".join(b"%d\n" % n for n in range(1, 20001)) + b"the last line\n"
            assert err.startswith(b"begun\n")
            assert b"committed" in err


def test_attach_ends_with_the_code_of_the_run_and_ctrl_c_does_not_end_it(run: Run) -> None:
    process = run.start("--timeout", "3600", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run.begun()
    first, second = run.look_on(), run.look_on()
    first.send_signal(signal.SIGINT)
    assert first.wait(30) == 128 + signal.SIGINT
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    second.communicate(timeout=60)
    assert second.returncode == 128 + signal.SIGTERM
    assert run.put_back()
    assert run.tool("attach").status == 2  # none is going on


def test_attach_to_a_run_whose_processes_are_all_gone(run: Run) -> None:
    process = run.start(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    run.begun()
    wait_for(lambda: any(b'"stdout"' in file.read_bytes() for file in run.tool.store.glob("*-*/output.index")), 30)
    kill_all([process.pid, *descendants(process.pid)])
    process.wait(30)
    record = max(run.tool.store.glob("*-*")).name
    attached = run.tool("attach", record)
    assert attached.status in (70, 1)  # its guardian may have been spared
    assert attached.stdout == b"begun\n"
    assert run.tool("recover").status == 0
    assert run.put_back()


# what takes no output: the monitor by itself, with little patience


def test_a_reader_that_stalls_holds_the_command_up_for_a_while_only(tmp_path: Path) -> None:
    script = f"head -c 4000000 /dev/zero; echo end >{tmp_path}/end"
    options = {"argv": ["sh", "-c", script], "stall": 0.5, "idle": 0.2}
    watcher = Watcher(tmp_path, options, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    found = watcher.finish(60)
    assert (found["issue"], found["status"]) == (None, 0)
    assert (tmp_path / "end").exists()
    assert found["dropped"]["stdout"] > 3_000_000
    assert found["octets"]["stdout"] == 4_000_000
    assert found["warnings"] == ["our output was not read for 0.5 s: from then on it was only recorded"]
    watcher.process.communicate()


def test_what_is_left_at_the_end_is_not_waited_for_without_end(tmp_path: Path) -> None:
    options = {"argv": ["head", "-c", "200000", "/dev/zero"], "stall": 0.5}
    watcher = Watcher(tmp_path, options, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    found = watcher.finish(60)
    assert (found["issue"], found["status"]) == (None, 0)
    assert found["dropped"]["stdout"] > 0
    watcher.process.communicate()


# silence


BUSY = "end=$(($(date +%s) + 3)); while [ $(date +%s) -lt $end ]; do :; done; echo done"


def test_a_silent_command_that_computes_is_at_work(tmp_path: Path) -> None:
    found = watch(tmp_path, "sh", "-c", BUSY, idle=0.8)
    assert found["issue"]["rule"] == "idle"
    found = watch(tmp_path, "sh", "-c", BUSY, idle=0.8, activity=True, hard=60)
    assert found["issue"] is None


def test_a_silent_command_that_reads_and_writes_is_at_work(tmp_path: Path) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do head -c 300000 /dev/zero; sleep 0.25; done | wc -c"
    found = watch(tmp_path, "sh", "-c", script, idle=1.2, activity=True, hard=60)
    assert found["issue"] is None


def test_activity_has_a_hard_limit(tmp_path: Path) -> None:
    found = watch(tmp_path, "sh", "-c", "while :; do :; done", idle=0.4, activity=True, hard=1.5)
    assert found["issue"]["reason"] == "no output for 1.5 s"


def test_one_that_only_sleeps_is_silent_all_the_same(tmp_path: Path) -> None:
    found = watch(tmp_path, "sh", "-c", "while :; do sleep 1; done", idle=4, activity=True, hard=60)
    assert found["issue"]["reason"] == "no output for 4 s"


def test_a_command_that_stops_itself(tmp_path: Path) -> None:
    found = watch(tmp_path, "sh", "-c", "kill -STOP $$", idle=0.3, hard=1)
    assert found["issue"]["reason"] == "no output for 1 s, and the command is stopped"
    found = watch(tmp_path, "sh", "-c", "kill -STOP $$", idle=None, timeout=30, hard=0.5)
    assert found["issue"]["type"] == "TIMEOUT"


WAITS = """
import fcntl, os, select, socket, subprocess, sys, threading
what = sys.argv[1]
if what == "lock":
    held = open(sys.argv[2], "w")
    fcntl.flock(held, fcntl.LOCK_EX)
    subprocess.run(["flock", sys.argv[2], "true"])
elif what == "accept":
    server = socket.create_server(("127.0.0.1", 0))
    server.accept()
elif what == "unix":
    server = socket.socket(socket.AF_UNIX)
    server.bind(sys.argv[2])
    server.listen()
    client = socket.socket(socket.AF_UNIX)
    client.connect(sys.argv[2])
    server.accept()[0].recv(1)
elif what == "poll":
    read, _ = os.pipe()
    poll = select.poll()
    poll.register(read)
    poll.poll()
elif what == "select":
    read, _ = os.pipe()
    select.select([read], [], [])
elif what == "epoll":
    read, _ = os.pipe()
    epoll = select.epoll()
    epoll.register(read)
    epoll.poll()
elif what == "fifo":
    os.mkfifo(sys.argv[2])
    open(sys.argv[2])
"""
WAITED_FOR = {
    "lock": "a lock on {path}",
    "accept": "a connection to a tcp connection at 127.0.0.1:",
    "unix": "the socket {path}",
    "poll": "pipe:[",
    "select": "pipe:[",
    "epoll": "pipe:[",
    "fifo": "{path} to be opened",
}


@pytest.mark.parametrize("what", list(WAITED_FOR))
def test_the_report_says_what_was_waited_for(tmp_path: Path, what: str) -> None:
    path = tmp_path / "place"
    found = watch(tmp_path, "python3", "-c", WAITS, what, str(path), idle=1.5)
    waits = [one["waits"] for one in found["doing"]]
    assert any(WAITED_FOR[what].format(path=path) in text for text in waits), found["doing"]
    if what == "lock":
        assert [one["depth"] for one in found["doing"]] == [0, 1]
        assert found["doing"][1]["command"] == f"flock {path} true"


def test_the_report_says_who_reads_the_terminal(run: Run) -> None:
    master, slave = os.openpty()
    command = ("--idle", "1", "--", "sh", "-c", "read answer")
    terminal = {"stdin": slave, "stdout": slave, "stderr": slave, "preexec_fn": lambda: login(slave)}
    process = run.call("run", "--scope", run.scope, *command, **terminal)
    os.close(slave)
    seen = b""
    with suppress(OSError):
        while data := os.read(master, 4096):
            seen += data
    os.close(master)
    assert process.wait(60) == 1
    assert b"waiting for input from the terminal /dev/pts/" in b" ".join(seen.split())
    (one,) = run.tool.report()["doing"]
    assert one["waits"].startswith("input from the terminal")
