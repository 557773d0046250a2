"""An operator on a real SSH connection, which is dropped in the middle of the run."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests import comparer
from tests.lab.container import descendants
from tests.lab.machine import Machine
from tests.system.scene import put, report, script, until

CHANGE = """
echo after >/srv/changed; echo begun
while [ ! -e /run/go ]; do sleep 0.05; done
echo 'the last line'; echo end >/srv/ended
"""
QUIET = ("-q", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes")


@pytest.fixture
def server(ext4_machine: Machine) -> Machine:
    """sshd runs, and root may log in from the machine itself by a key."""
    done = ext4_machine.run("apt-get", "install", "-qqy", "openssh-server", timeout=180)
    assert done.returncode == 0, done.stderr
    made = ext4_machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519")
    assert made.returncode == 0, made.stderr
    key = (Path(ext4_machine.root) / "root/.ssh/id_ed25519.pub").read_text()
    put(ext4_machine, "/root/.ssh/authorized_keys", key, 0o600)
    until(ext4_machine, f"ssh {' '.join(QUIET)} root@127.0.0.1 true", 60)
    return ext4_machine


def drop(machine: Machine, process: subprocess.Popen[bytes]) -> None:
    """The client dies without a word; the server finds its connection closed."""
    for pid in [*descendants(process.pid)]:
        if Path(f"/proc/{pid}/comm").read_text() == "ssh\n":
            os.kill(pid, signal.SIGKILL)
    process.wait(30)


def ended(machine: Machine) -> None:
    until(machine, "snapbreaker report --last --json && ! snapbreaker attach </dev/null", 60)


@pytest.mark.parametrize("terminal", ["-tt", "-T"])
@pytest.mark.parametrize("how", ["rollback", "continue"])
def test_a_dropped_session(server: Machine, terminal: str, how: str) -> None:
    change = script(server, CHANGE)
    before = server.snapshot()
    words = ("snapbreaker", "run", "--on-hangup", how, "--", change)
    process = server.start("ssh", *QUIET, terminal, "root@127.0.0.1", *words, session=False)
    until(server, "grep -q after /srv/changed", 60)
    drop(server, process)
    if how == "continue":
        server.run("touch", "/run/go", session=False)
        until(server, "test -e /srv/ended", 60)
        ended(server)
        told = report(server)
        assert (told["outcome"], told["exit_code"]) == ("committed", 0), told
        attached = server.snapbreaker("attach", told["id"])
        assert attached.returncode == 0, attached.stderr
        assert "the last line" in attached.stdout
        return
    ended(server)
    told = report(server)
    assert told["outcome"] == "rolled-back", told
    assert told["issue"]["type"] == "INTERRUPTED"
    assert told["exit_code"] in (128 + signal.SIGHUP, 128 + signal.SIGPIPE)
    assert comparer.differences(before, server.snapshot()) == []
