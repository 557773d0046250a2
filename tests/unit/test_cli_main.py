"""The exit codes of the launcher, whatever happens to its standard streams."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from snapbreaker.cli import main as cli
from snapbreaker.errors import CheckpointError
from snapbreaker.exits import Exit
from snapbreaker.signals import Interrupted

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CheckpointError("no", "do"), Exit.NOT_STARTED),
        (Interrupted(signal.SIGTERM), 143),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (OSError(28, "No space left on device", b"/odd\xff"), Exit.INTERNAL),
        (RuntimeError("a bug"), Exit.INTERNAL),
        (SystemExit(1), 141),
        (GeneratorExit(), Exit.INTERNAL),
    ],
)
def test_every_error_has_its_code(monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    """Never 1: that says that a run was rolled back and verified."""

    def fail(**_options: object) -> None:
        raise error

    monkeypatch.setattr(cli, "main", fail)
    assert cli._code() == code


@pytest.mark.real_commands
@pytest.mark.parametrize(
    ("arguments", "redirection", "code"),
    [
        ("checkpoint list", "<&- >&- 2>&-", 0),
        ("rules list", ">/dev/full", 70),
        ("rules list", "| :", 128 + signal.SIGPIPE),
        ("bogus", "2>/dev/full", 2),
    ],
)
def test_streams_that_are_gone(tmp_path: Path, arguments: str, redirection: str, code: int) -> None:
    script = f'set -o pipefail; "$0" -m snapbreaker {arguments} {redirection}'
    environment = {
        **os.environ,
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'backends'}",
        "SNAPBREAKER_STORE": str(tmp_path),
    }
    done = subprocess.run(["bash", "-c", script, sys.executable], env=environment, capture_output=True)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
