"""dpkg's database as it lies on disk."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from snapbreaker.errors import CheckpointError
from snapbreaker.system import packages

STATUS = """\
Package: sound
Status: install ok installed
Architecture: all
Version: 1.0
Description: Status: not a field
 Package: neither

Package: sound-lib
Status: install ok installed
Multi-Arch: same
Architecture: amd64
Version: 1:2.0-3

Package: sound-lib
Status: hold ok installed
Multi-Arch: same
Architecture: i386
Version: 1:2.0-2

Package: removed
Status: deinstall ok config-files
Architecture: all
Version: 3

Package: only-wanted
Status: install ok not-installed
Architecture: all
"""


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "updates").mkdir()
    (tmp_path / "status").write_text(STATUS)
    monkeypatch.setattr(packages, "STATUS", str(tmp_path / "status"))
    monkeypatch.setattr(packages, "UPDATES", str(tmp_path / "updates"))
    monkeypatch.setattr(packages, "LOCKS", (str(tmp_path / "lock"),))
    return tmp_path


def test_what_is_read(database: Path) -> None:
    found = packages.read(str(database / "status"))
    assert {name: str(package) for name, package in found.items()} == {
        "sound": "1.0 installed",
        "sound-lib:amd64": "1:2.0-3 installed",
        "sound-lib:i386": "1:2.0-2 installed, hold",
        "removed": "3 config-files, deinstall",
        "only-wanted": "not-installed",
    }
    assert packages.unsound(found) == []


@pytest.mark.real_commands
@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="dpkg is missing: run on Debian")
def test_as_dpkg_itself_says() -> None:
    form = "${binary:Package} ${Version} ${db:Status-Want} ${db:Status-Eflag} ${db:Status-Status}\\n"
    listed = subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True).stdout
    theirs = {tuple(line.split()[1:]) for line in listed.splitlines() if not line.endswith("not-installed")}
    ours = {
        (one.version, one.selection, one.flag, one.state)
        for one in packages.read().values()
        if one.state != "not-installed"
    }
    assert ours == theirs
    names = {line.split()[0].partition(":")[0] for line in listed.splitlines()}
    assert names == {name.partition(":")[0] for name in packages.read()}


@pytest.mark.parametrize(
    "status",
    [
        "install ok half-installed",
        "install ok unpacked",
        "install ok half-configured",
        "install ok triggers-awaited",
        "install ok triggers-pending",
        "install reinstreq installed",
    ],
)
def test_half_done_is_refused(database: Path, status: str) -> None:
    packages.refuse_unsound()
    stanza = f"\nPackage: bad\nStatus: {status}\nArchitecture: all\nVersion: 1\n"
    (database / "status").write_text(STATUS + stanza)
    with pytest.raises(CheckpointError, match=r"packages are not in order: bad \("):
        packages.refuse_unsound()


def test_an_interrupted_dpkg_is_refused(database: Path) -> None:
    (database / "updates/tmp.i").write_text("")
    packages.refuse_unsound()
    (database / "updates/0003").write_text("Package: x\n")
    with pytest.raises(CheckpointError, match="dpkg was interrupted"):
        packages.refuse_unsound()


def test_a_lock_that_somebody_holds(database: Path) -> None:
    """fcntl(2) locks are of a process: another one has to hold it."""
    lock = database / "lock"
    assert packages.held_locks() == []
    lock.touch()
    assert packages.held_locks() == []
    holding, told = os.pipe()
    child = os.fork()
    if child == 0:
        fd = os.open(lock, os.O_RDWR)
        fcntl.lockf(fd, fcntl.LOCK_EX)
        os.write(told, b"+")
        signal.pause()
        os._exit(0)
    try:
        assert os.read(holding, 1) == b"+"
        assert packages.held_locks() == [str(lock)]
        with pytest.raises(CheckpointError, match="a package manager is at work"):
            packages.refuse_unsound()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(holding)
        os.close(told)
    assert packages.held_locks() == []
