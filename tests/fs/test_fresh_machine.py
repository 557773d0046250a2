"""scripts/snapbreaker of a fresh clone on a bare Debian: python3, and neither pip nor venv."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from snapbreaker import __version__
from tests import comparer
from tests.lab import debian
from tests.lab.loopfs import LoopFilesystem

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = "/srv/clone/scripts/snapbreaker"
# How this machine reaches its package registries; only the test takes it into the root.
NETWORK = ("etc/apt", "etc/hosts", "etc/pip.conf", "etc/resolv.conf", "etc/ssl/certs", "usr/share/keyrings")


@pytest.fixture
def machine(ext4: LoopFilesystem) -> Path:
    """A Debian root with a clone in it that was never used."""
    if reason := debian.missing():
        pytest.skip(reason)
    root = Path(ext4.path) / "machine"
    debian.unpack(root)
    clone = root / "srv/clone"
    clone.parent.mkdir(exist_ok=True)
    listing = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
    )
    for name in filter(None, listing.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    return root


@pytest.fixture
def connected(machine: Path) -> Path:
    """The same, reaching the package registries as this machine does, its own lists empty."""
    for name in NETWORK:
        here, there = Path("/") / name, machine / name
        if here.is_dir():
            shutil.rmtree(there, ignore_errors=True)
            shutil.copytree(here, there)
        elif here.exists():
            shutil.copy2(here, there)
    home = Path.home() / ".config/pip"
    if home.is_dir():
        shutil.copytree(home, machine / "root/.config/pip")
    shutil.rmtree(machine / "var/lib/apt/lists")
    return machine


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
    argv = ["chroot", str(root), *environment, LAUNCHER, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)


def outside_the_clone(root: Path) -> dict[bytes, comparer.Facts]:
    return comparer.snapshot(root, exclude=[b"srv/clone"])


def test_first_call_prepares_and_later_ones_are_silent(connected: Path) -> None:
    before = outside_the_clone(connected)
    first = run(connected, "--version")
    assert first.returncode == 0, first.stderr
    assert __version__ in first.stdout
    said = first.stderr.splitlines()
    assert len(said) == 2, said
    assert "preparing .env" in said[0]
    assert "python3-pip-whl" in said[1]
    assert comparer.differences(before, outside_the_clone(connected)) == []
    assert sorted(path.name for path in (connected / "srv/clone/.env").iterdir())[1:] == ["lock"]
    second = run(connected, "--version")
    assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")


def test_the_first_command_of_the_readme(connected: Path) -> None:
    """Copied and pasted: a deploy that adds a user and then fails; the user is gone again."""
    lines = (ROOT / "README.md").read_text().splitlines()
    pasted = next(line for line in lines if line.startswith("    sudo scripts/snapbreaker run"))
    command = pasted.split(maxsplit=1)[1]
    subprocess.run(["mount", "-t", "proc", "proc", connected / "proc"], check=True)
    before = comparer.snapshot(connected / "etc")
    environment = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
    argv = ["chroot", str(connected), *environment, "sh", "-c", f"cd /srv/clone && {command}"]
    result = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    assert result.returncode == 1, result.stderr
    assert "Unable to locate package my-app" in result.stderr
    assert "Rollback completed successfully" in result.stderr
    assert comparer.differences(before, comparer.snapshot(connected / "etc")) == []


def test_calls_at_once_prepare_once_also_after_an_attempt_that_was_killed(connected: Path) -> None:
    argv = ["unshare", "--pid", "--kill-child", "--fork", "chroot", str(connected), LAUNCHER, "--version"]
    started = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env={"PATH": "/usr/sbin:/usr/bin:/bin"})
    assert started.stderr is not None
    assert "preparing" in started.stderr.readline()
    started.kill()
    started.communicate()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: run(connected, "--version"), range(4)))
    assert [result.returncode for result in results] == [0] * 4
    assert sum("preparing" in result.stderr for result in results) == 1
    assert not list((connected / "srv/clone/.env").glob("new.*"))


@pytest.fixture
def unconnected(machine: Path) -> Path:
    (machine / "etc/apt/sources.list").write_text("deb [trusted=yes] file:///nowhere ./\n")
    shutil.rmtree(machine / "var/lib/apt/lists")
    return machine


def test_without_a_registry_it_says_so_and_ends_with_70(unconnected: Path) -> None:
    result = run(unconnected, "--version")
    assert result.returncode == 70
    assert "cannot prepare .env: python3-pip-whl could not be fetched" in result.stderr
    assert [path.name for path in (unconnected / "srv/clone/.env").iterdir()] == ["lock"]


def test_without_python_it_ends_with_70(machine: Path) -> None:
    (machine / "usr/bin/python3").unlink()
    result = run(machine, "--version")
    assert result.returncode == 70
    assert "no python3 >= 3.11" in result.stderr
