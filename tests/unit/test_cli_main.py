"""The exit codes of the launcher, whatever happens to its standard streams."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from snapbreaker.cli import main as cli
from snapbreaker.errors import CheckpointError, UsageError
from snapbreaker.exits import Exit
from snapbreaker.report import schema
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


@pytest.mark.parametrize(
    "arguments", ["--idle nan", "--idle-hard -1", "--timeout 1e9", "--confirm -3", "--grace inf"]
)
def test_which_time_is_no_time(arguments: str) -> None:
    option = arguments.partition(" ")[0]
    with pytest.raises(UsageError, match=f"{option} .* is no number of seconds"):
        cli.main(["run", *arguments.split(), "--", "true"], standalone_mode=False)


@pytest.mark.real_commands
def test_what_the_locale_cannot_show(tmp_path: Path) -> None:
    """A log in UTF-8 on a terminal in Latin-1."""
    log = tmp_path / "app.log"
    log.write_text("ERROR caf\u00e9 \u2192\n", encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/backends",
        "PYTHONIOENCODING": "latin-1",
    }
    run = [sys.executable, "-m", "snapbreaker", "rules"]
    shown = subprocess.run([*run, "check", str(log)], capture_output=True, env=environment, check=False)
    assert (shown.returncode, shown.stderr) == (1, b"")
    assert b"ERROR caf\xe9 \\u2192" in shown.stdout
    log.write_text("caf\u00e9 \u2192\n", encoding="utf-8")
    learned = subprocess.run(
        [*run, "learn", "-"], input=log.read_bytes(), capture_output=True, env=environment, check=True
    )
    assert "caf\u00e9 \u2192" in learned.stdout.decode("utf-8")


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


@pytest.mark.real_commands
@pytest.mark.parametrize(
    "arguments",
    [
        "run --json --nope -- true",
        "run --json --",
        "rules list --json --profile nope",
        "checkpoint show --json zz",
    ],
)
def test_a_refusal_is_told_as_events_too(tmp_path: Path, arguments: str) -> None:
    done = _call(tmp_path, *arguments.split())
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [schema.problems(event) for event in found] == [[], []]
    assert [(event["event"], event["exit_code"]) for event in found] == [("error", 2), ("finished", 2)]
    assert done.returncode == 2
    assert found[0]["message"] in done.stderr


@pytest.mark.real_commands
def test_an_option_of_the_command_is_none_of_ours(tmp_path: Path) -> None:
    assert not _call(tmp_path, "run", "--nope", "--", "tool", "--json").stdout


def _call(store: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'backends'}",
        "SNAPBREAKER_STORE": str(store),
    }
    argv = [sys.executable, "-m", "snapbreaker", *arguments]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
