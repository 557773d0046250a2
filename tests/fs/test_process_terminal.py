"""Runs with a terminal: ours is a pty of the test, the command's is made by the monitor."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.fs.operator import Operator, see
from tests.fs.processes import ROOT, Watcher, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes cgroups: run as root")


def test_command_has_a_terminal_like_ours(tmp_path: Path) -> None:
    operator = Operator(tmp_path, "sh", "-c", "test -t 0 && test -t 1 && test -t 2 && stty size")
    found = operator.finish()
    assert (found["status"], found["octets"]) == (0, {"pty": len(operator.seen)})
    assert operator.seen == b"33 77\r\n"


def test_window_size_follows(tmp_path: Path) -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    operator = Operator(tmp_path, "sh", "-c", script)
    operator.see(b"ready")
    operator.resize(50, 120)
    operator.see(b"50 120")
    assert operator.finish()["status"] == 0


def test_keys_reach_the_command(tmp_path: Path) -> None:
    operator = Operator(tmp_path, "sh", "-c", "echo ready; read word; echo got $word")
    operator.see(b"ready")
    operator.type(b"hello\r")
    operator.see(b"got hello")
    assert operator.finish()["status"] == 0


def test_interrupt_key_trips(tmp_path: Path) -> None:
    operator = Operator(tmp_path, "sh", "-c", "trap '' INT; echo ready; while :; do sleep 0.05; done")
    operator.see(b"ready")
    operator.type(b"\x03")
    found = operator.finish()
    assert (found["issue"]["type"], found["issue"]["signal"]) == ("INTERRUPTED", signal.SIGINT)
    assert found["survivors"] == []


def test_interrupt_key_is_a_key_for_a_raw_program(tmp_path: Path) -> None:
    operator = Operator(tmp_path, "sh", "-c", "stty raw; echo ready; head -c 1 | od -An -tx1")
    operator.see(b"ready")
    operator.type(b"\x03")
    operator.see(b"03")
    assert operator.finish()["issue"] is None


def test_stop_key_without_a_shell_changes_nothing(tmp_path: Path) -> None:
    """Nobody could continue us: the kernel ignores the stop of an orphaned process group."""
    operator = Operator(tmp_path, "sh", "-c", "echo ready; sleep 0.3; echo end", idle=2)
    operator.see(b"ready")
    operator.type(b"\x1a")
    operator.see(b"end")
    assert operator.finish()["issue"] is None


def test_stop_key_and_continue_in_a_shell(tmp_path: Path) -> None:
    """The command, we and the idle clock stop; the shell gets its terminal as it was."""
    master, slave = os.openpty()
    result = tmp_path / "result"
    count = "i=0; while [ $i -lt 12 ]; do i=$((i+1)); echo beat $i; sleep 0.1; done"
    options = json.dumps({"argv": ["sh", "-c", count], "idle": 1})
    (tmp_path / "run").write_text(f"exec {sys.executable} -m tests.lab.watch {result} '{options}'\n")
    shell = subprocess.Popen(
        ["bash", "--norc", "-i"],
        cwd=ROOT,
        env=os.environ | {"PS1": "prompt> ", "HISTFILE": ""},
        preexec_fn=lambda: os.login_tty(os.dup(slave)),
    )
    os.close(slave)
    os.write(master, f"sh {tmp_path}/run\n".encode())
    see(master, b"beat 3")
    os.write(master, b"\x1a")
    see(master, b"Stopped")
    os.write(master, b"sleep 1.5; stty -a; echo no''thing\n")
    shown = see(master, b"nothing")
    assert b"beat" not in shown
    assert b" icanon" in shown
    os.write(master, b"fg\n")
    see(master, b"beat 12")
    wait_for(result.exists)
    assert json.loads(result.read_text())["issue"] is None
    os.write(master, b"exit\n")
    assert shell.wait(10) == 0
    os.close(master)


def test_line_on_a_terminal_trips(tmp_path: Path) -> None:
    operator = Operator(tmp_path, "sh", "-c", "printf '\\033[31mERROR: red\\033[0m\\n'; sleep 1000")
    found = operator.finish()
    assert (found["issue"]["line"], found["issue"]["source"]) == ("ERROR: red", "pty")
    assert operator.seen.startswith(b"\x1b[31mERROR: red\x1b[0m\r\n")


def test_daemon_that_keeps_the_terminal(tmp_path: Path) -> None:
    script = "setsid sh -c 'trap \"\" HUP; sleep 1000' & sleep 0.2; echo done"
    found = Operator(tmp_path, "sh", "-c", script).finish()
    assert (found["issue"], found["status"]) == (None, 0)


def test_terminal_without_one_of_ours(tmp_path: Path) -> None:
    """--pty in a pipeline: 80 columns, and the end of input is typed."""
    watcher = Watcher(tmp_path, {"argv": ["sh", "-c", "stty size; cat"], "pty": True}, stdin=-1, stdout=-1)
    out = watcher.process.communicate(b"no line feed")[0]
    assert b"24 80\r\n" in out
    assert out.endswith(b"no line feed")
    assert watcher.finish()["status"] == 0


def test_output_piped_on_but_input_from_a_terminal(tmp_path: Path) -> None:
    """``snapbreaker run … | tee log``: pipes, and Ctrl-C reaches us and the command through our terminal."""
    master, slave = os.openpty()
    watcher = Watcher(
        tmp_path,
        {"argv": ["sh", "-c", "tty; exec sleep 1000"]},
        stdin=slave,
        stdout=-1,
        preexec_fn=lambda: _take_terminal(slave),
    )
    pid = watcher.tree()["root"]
    wait_for(lambda: Path(f"/proc/{pid[0]}/comm").read_text() == "sleep\n")
    os.write(master, b"\x03")
    out = watcher.process.communicate()[0]
    found = watcher.finish()
    assert found["issue"]["type"] == "INTERRUPTED"
    assert out.startswith(b"/dev/pts/")
    os.close(master)
    os.close(slave)


def _take_terminal(slave: int) -> None:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
