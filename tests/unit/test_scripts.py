"""The scripts of the clone: the launcher's fast path, the pins, the checks of the shell code."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from snapbreaker import __version__

pytestmark = pytest.mark.real_commands
ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "scripts/snapbreaker"
PINS = dict(
    re.findall(
        r"^([\w-]+)==(\S+) --hash=sha256:[0-9a-f]{64}$", (ROOT / "scripts/requirements.txt").read_text(), re.M
    )
)


def run(*argv: str | Path, **options: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload, no-any-return]


def requirement_name(requirement: str) -> str:
    return re.split(r"[^\w-]", requirement)[0].lower()


def test_pins_are_complete_and_what_the_tests_run_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {requirement_name(text) for text in project["dependencies"]} <= PINS.keys()
    for name, version in PINS.items():
        assert importlib.metadata.version(name) == version
        wanted = [text for text in importlib.metadata.requires(name) or [] if "extra ==" not in text]
        needed = {requirement_name(text) for text in wanted if "python_version" not in text and "win" not in text}
        assert needed <= PINS.keys(), f"{name} needs {needed - PINS.keys()}"


@pytest.mark.parametrize("directory", [ROOT, ROOT / "scripts", Path("/")])
def test_launcher_runs_from_anywhere(directory: Path) -> None:
    done = run(LAUNCHER, "--version", cwd=directory)
    assert done.returncode == 0, done.stderr
    assert __version__ in done.stdout


def test_launcher_runs_through_a_link_and_by_a_relative_name(tmp_path: Path) -> None:
    link = tmp_path / "sb"
    link.symlink_to(LAUNCHER)
    assert __version__ in run(link, "--version").stdout
    assert __version__ in run("sh", "snapbreaker", "--version", cwd=ROOT / "scripts").stdout


def test_fast_path_is_one_exec(tmp_path: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is missing: apt-get install strace")
    run(LAUNCHER, "--version")
    trace = tmp_path / "trace"
    calls = "execve,execveat,fork,vfork,clone,clone3"
    assert run("strace", "-qq", "-o", trace, "-e", f"trace={calls}", LAUNCHER, "--version").returncode == 0
    seen = [line.split("(")[0] for line in trace.read_text().splitlines()]
    assert seen[:2] == ["execve", "execve"]


def test_a_start_that_fails_is_no_rolled_back_run(tmp_path: Path) -> None:
    (tmp_path / "sh.py").write_text("raise RuntimeError('broken library')")
    shutil.copytree(ROOT / "snapbreaker", tmp_path / "snapbreaker")
    (tmp_path / "snapbreaker/cli/main.py").write_text("import sh\n")
    done = run(sys.executable, "-m", "snapbreaker", cwd=tmp_path)
    assert done.returncode == 70
    assert done.stderr == "snapbreaker: cannot start: RuntimeError: broken library\n"
    assert run(LAUNCHER, "no-such-verb").returncode == 2


def test_unknown_tier_is_refused() -> None:
    done = run(ROOT / "scripts/test", "none")
    assert done.returncode == 2
    assert "usage: scripts/test" in done.stderr


def test_shell_scripts_parse() -> None:
    places = ("scripts", "scripts/lib", "vagrant", "vagrant/provision", ".ci")
    for script in (file for place in places for file in (ROOT / place).iterdir()):
        if script.is_file() and (script.suffix == ".sh" or script.read_bytes().startswith(b"#!/bin/sh")):
            assert run("sh", "-n", script).stderr == ""


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_pages_name_files_that_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target
    for name in re.findall(r"`([\w./-]+\.py)`", text):
        assert (ROOT / name).exists() or (ROOT / "snapbreaker" / name).exists(), name
