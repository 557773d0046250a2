"""`rules allow`: the line passes afterwards, and the file keeps what it held."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from snapbreaker.checkpoint.store import Store
from snapbreaker.cli.main import Settings
from snapbreaker.cli.rules import rules
from snapbreaker.errors import UsageError
from snapbreaker.report.plan import REASON

LINE = "WARN cache: shop-3 is cold after 12 ms"


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(rules, arguments, obj=Settings(Store("/nonexistent")))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return f"{result.exit_code} {result.output}"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("snapbreaker.config.SYSTEM", tmp_path / "etc.toml")
    (tmp_path / "run.log").write_text(LINE.replace("3", "44").replace("12 ms", "1.5 s") + "\n")
    return tmp_path / "snapbreaker.toml"


def test_the_line_passes_and_the_file_keeps_its_content(project: Path) -> None:
    before = "# ours\n[pack]\nname = 'shop' # here\n"
    project.write_text(before)
    project.chmod(0o640)
    assert invoke("check", "run.log").startswith("1 WARNING")
    assert invoke("allow", "--line", LINE, "--reason", 'it\'s "fine"', "--expires", "30d").startswith("0 ")
    assert invoke("check", "run.log") == "0 no issue\n"
    assert project.read_text().startswith(before)
    assert project.stat().st_mode & 0o777 == 0o640
    invoke("allow", "--line", LINE, "--reason", "again")
    assert invoke("check", "run.log") == "0 no issue\n"
    assert [path.name for path in project.parent.glob("*.new")] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--line", LINE, "--reason", " "], "--reason is empty"),
        (["--line", LINE, "--reason", REASON], "still the text"),
        (["--reason", "x"], "which line"),
        (["--line", LINE, "--reason", "x", "--expires", "soon"], "no day"),
        (["--line", LINE, "--reason", "x", "--expires", "2020-01-31"], "is past"),
        (["--line", " ", "--reason", "x"], "the line is empty"),
        (["--line", "WARN a\nWARN b\n\nWARN c\n", "--reason", "x"], "a text of 3 lines, and each"),
        (["--line", "WARN 10 %\rWARN 20 %", "--reason", "x"], "a text of 2 lines"),
        (["--line", "WARN " + "x " * 5000, "--reason", "x"], "longer than what is judged"),
    ],
)
def test_bad_usage(project: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        invoke("allow", *arguments)
    assert not project.exists()


def test_a_line_with_octets_that_are_no_text(project: Path) -> None:
    """It is what was judged: in a log, in colour, not UTF-8."""
    octets = b"\x1b[33mWARNING\x1b[0m: \xff is cold"
    (project.parent / "run.log").write_bytes(octets + b"\n")
    assert invoke("check", "run.log").startswith("1 WARNING")
    reason = os.fsdecode(b"it\xff s harmless")
    assert invoke("allow", "--line", os.fsdecode(octets), "--reason", reason).startswith("0 ")
    assert invoke("check", "run.log") == "0 no issue\n"


def test_a_line_with_its_line_feed(project: Path) -> None:
    assert invoke("allow", "--line", f"\n{LINE}\r\n", "--reason", "x").startswith("0 ")
    assert invoke("check", "run.log") == "0 no issue\n"


def test_a_bad_file_is_left_as_it_is(project: Path) -> None:
    project.write_text("[[rule]]\nname = 3\n")
    with pytest.raises(UsageError, match=r"snapbreaker.toml:1"):
        invoke("allow", "--line", LINE, "--reason", "x")
    assert project.read_text() == "[[rule]]\nname = 3\n"


def test_many_at_once(project: Path) -> None:
    """None of them is lost."""
    pids = []
    for number in range(8):
        pid = os.fork()
        if pid == 0:
            try:
                invoke("allow", "--line", f"WARN of kind {chr(97 + number) * 5}", "--reason", "x")
            finally:
                os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    assert project.read_text().count("[[rule]]") == 8
