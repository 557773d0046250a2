"""The command breaks the very machine that snapbreaker runs on: its Python, its C library, snapbreaker itself.

A chroot stands for the machine: its ``/`` is the scope, and the program in it is the one-file bundle.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests import comparer
from tests.fs.conftest import MakeFilesystem
from tests.lab import debian, loopfs

REPOSITORY = Path(__file__).resolve().parents[2]
CHROOT = ("unshare", "--net", "chroot")  # whose ports nobody else opens
PROGRAM = "/usr/local/bin/snapbreaker"
STORE = "var/lib/snapbreaker"
EXCLUDED = (b"var/lib/snapbreaker", b"proc", b"run")
# Everything up to the last `mv` needs programs; afterwards no program can be started any more.
BREAK = """
mv /usr/lib/python3.11 /usr/lib/python3.away
rm -f /usr/bin/python3.11 /usr/local/bin/snapbreaker
mv /usr/bin/cp /usr/bin/btrfs /root/
echo broken >/etc/passwd
mv /usr/lib/x86_64-linux-gnu/libc.so.6 /root/libc.so.6
/bin/true 2>/dev/null && exit 9
"""
TRIP = 'echo "ERROR: migration 42 failed"\n'
GO_ON = "while :; do echo more; done\n"
WAIT = ">/run/broken\nwhile :; do :; done\n"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "snapbreaker"
    subprocess.run([REPOSITORY / "scripts/bundle", out], check=True, capture_output=True)
    return out


@pytest.fixture(params=loopfs.FSTYPES)
def machine(request: pytest.FixtureRequest, make_filesystem: MakeFilesystem, bundle: Path) -> Path:
    if reason := debian.missing():
        pytest.skip(reason)
    root = make_filesystem(request.param, size=3 << 30).path
    debian.unpack(root)
    program = root / PROGRAM.lstrip("/")
    program.write_bytes(bundle.read_bytes())
    program.chmod(0o755)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root / "run"], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    return root


def start(machine: Path, script: str) -> subprocess.Popen[str]:
    argv = [
        "unshare",
        "--net",
        "chroot",
        str(machine),
        PROGRAM,
        "run",
        "--scope",
        "/",
        "--",
        "/bin/sh",
        "-c",
        script,
    ]
    return subprocess.Popen(
        argv,
        env={**debian.ENVIRONMENT, "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def look(machine: Path) -> dict[bytes, comparer.Facts]:
    return comparer.snapshot(machine, EXCLUDED)


def wait_until_broken(machine: Path) -> None:
    for _ in range(3000):
        if (machine / "run/broken").exists():
            return
        time.sleep(0.01)
    raise AssertionError("the command did not get so far")


def test_a_machine_without_python_and_libc_is_put_back(machine: Path) -> None:
    before = look(machine)
    process = start(machine, BREAK + TRIP + GO_ON)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1, told
    assert "migration 42 failed" in told
    assert comparer.differences(before, look(machine)) == []
    # And it works again, by its own programs.
    listed = debian.chroot(machine, PROGRAM, "checkpoint", "list").stdout
    assert "rolled-back" in listed


def test_the_same_when_the_worker_is_killed_at_that_moment(machine: Path) -> None:
    before = look(machine)
    process = start(machine, BREAK + WAIT)
    wait_until_broken(machine)
    worker = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    os.kill(worker, signal.SIGKILL)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1, told
    assert comparer.differences(before, look(machine)) == []


def test_the_lifeboat_recovers_when_nothing_of_snapbreaker_is_left(machine: Path) -> None:
    before = look(machine)
    process = start(machine, BREAK + WAIT)
    wait_until_broken(machine)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (process.pid, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=120)
    assert not (machine / PROGRAM.lstrip("/")).exists()
    # The script's line, without the shell that is gone: settings, then the words.
    line = (machine / STORE / "lifeboat/recover").read_text().splitlines()[-1]
    words = shlex.split(line)[:-1]
    settings = dict(word.split("=", 1) for word in words if word.startswith("PYTHON"))
    argv = [
        "unshare",
        "--net",
        "chroot",
        str(machine),
        *[word for word in words if not word.startswith("PYTHON")],
        "recover",
    ]
    result = subprocess.run(
        argv, env={**debian.ENVIRONMENT, **settings}, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert comparer.differences(before, look(machine)) == []
