"""scripts/bundle: one file that any python3 >= 3.11 runs, with nothing else installed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from snapbreaker import __version__

pytestmark = pytest.mark.real_commands
ROOT = Path(__file__).resolve().parents[2]


def build(out: Path) -> Path:
    subprocess.run([ROOT / "scripts/bundle", out], check=True, timeout=120)
    return out


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("bundle") / "snapbreaker")


def run(bundle: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", "-S", str(bundle), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, cwd="/", timeout=60)


def rewritten(bundle: Path, target: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy of the bundle with each file's content changed, or left out."""
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if (content := change(name, old.read(name))) is not None:
                new.writestr(name, content)
    return target


def test_runs_alone(bundle: Path) -> None:
    done = run(bundle, "--version")
    assert done.returncode == 0, done.stderr
    assert __version__ in done.stdout
    executed = subprocess.run([bundle, "--version"], capture_output=True, text=True)
    assert executed.stdout == done.stdout


def test_the_environment_has_no_say_and_without_python_it_ends_with_70(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise SystemExit(1)")
    poisoned = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    assert subprocess.run([bundle, "--version"], env=poisoned, stdout=subprocess.DEVNULL).returncode == 0
    without = subprocess.run(["/bin/sh", bundle], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert (without.returncode, without.stderr) == (70, "snapbreaker: there is no python3 here\n")


def test_same_sources_give_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    time.sleep(1 - time.time() % 1)  # zip files hold whole seconds
    assert build(tmp_path / "again").read_bytes() == bundle.read_bytes()


def test_rule_packs_and_backends_load_from_inside(bundle: Path) -> None:
    listed = run(bundle, "rules", "list")
    assert listed.returncode == 0, listed.stderr
    assert "apt" in listed.stdout
    doctor = run(bundle, "doctor", "--scope", "/var/tmp")
    assert doctor.returncode in (0, 4), doctor.stderr
    assert "filecopy" in doctor.stdout


def test_another_python_version_takes_the_sources(bundle: Path, tmp_path: Path) -> None:
    def other_magic(name: str, content: bytes) -> bytes:
        return b"\0\0\r\n" + content[4:] if name.endswith(".pyc") else content

    done = run(rewritten(bundle, tmp_path / "other", other_magic), "--version")
    assert done.returncode == 0, done.stderr


def test_a_damaged_bundle_ends_with_70(bundle: Path, tmp_path: Path) -> None:
    damaged = rewritten(
        bundle, tmp_path / "damaged", lambda name, data: None if name.startswith("click/") else data
    )
    assert run(damaged, "--version").returncode == 70


def test_holds_what_the_wheel_holds(bundle: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(argv, check=True, capture_output=True, cwd=ROOT, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")

    def sources(archive: Path) -> set[str]:
        names = zipfile.ZipFile(archive).namelist()
        return {name for name in names if name.startswith("snapbreaker") and name.endswith((".py", ".toml"))}

    assert sources(wheel) == sources(bundle)
    assert "snapbreaker_backends/filecopy.py" in sources(wheel) or any(
        name.startswith("snapbreaker_backends/filecopy/") for name in sources(wheel)
    )
