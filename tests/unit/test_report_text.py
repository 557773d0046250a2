"""What a person reads on the terminal."""

from __future__ import annotations

import dataclasses
import io
import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from snapbreaker.issue import Issue, IssueType
from snapbreaker.report import text
from snapbreaker.report.model import Line, PathNote
from snapbreaker.report.wording import cells
from tests.unit import report_samples as samples

SGR = re.compile(r"\x1b\[[0-9;]*m")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


@pytest.mark.parametrize("sample", samples.ALL)
@pytest.mark.parametrize("width", [60, 80, 200])
def test_everything_but_commands_and_the_tripping_line_fits(sample: samples.Sample, width: int) -> None:
    report = sample()
    long = [line for line in text.text(report, width).splitlines() if cells(line) > width]
    assert all("snapbreaker" in line or line.startswith("> ") or " " not in line.strip() for line in long)


@pytest.mark.parametrize("sample", samples.ALL)
def test_colour_changes_no_word(sample: samples.Sample, terminal: Terminal) -> None:
    coloured = text.render(sample(), terminal)
    assert "\x1b[" in coloured
    assert [line.rstrip() for line in SGR.sub("", coloured).splitlines()] == text.text(sample()).splitlines()


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour_where_it_is_not_wanted(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert text.render(samples.failed(), terminal) == text.text(samples.failed())


def test_no_colour_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert text.render(samples.failed(), io.StringIO()) == text.text(samples.failed())


def test_the_width_is_that_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream:
        termios.tcsetwinsize(slave, (30, 120))
        assert text.render(samples.failed(), stream) == text.text(samples.failed(), 120)
    os.close(master)


def test_a_trip_shows_line_rule_result_and_next_step() -> None:
    shown = text.text(samples.tripped())
    assert "> stdout:42  ERROR: migration 42 failed (commit 3f2a9bc41d, took 0.31 s)\n" in shown
    assert "default/level-error" in shown
    assert "tree frozen in 0.9 ms, 7 processes killed" in shown
    assert "Rollback completed successfully (exit 1)" in shown
    assert "snapbreaker report 000007-20261123T170000 --format markdown" in shown
    assert shown.index("migration 41") < shown.index("> stdout:42") < shown.index("retrying")


def test_the_tripping_line_is_shown_once_also_where_the_context_holds_it() -> None:
    report = samples.tripped()
    assert report.issue is not None
    report.before.append(Line("stdout", 42, report.issue.line))
    assert text.text(report) == text.text(samples.tripped())


def test_a_failed_rollback_is_loud_and_lists_what_is_wrong() -> None:
    shown = text.text(samples.failed())
    assert shown.splitlines()[0] == "!" * 80
    assert "ROLLBACK FAILED - MANUAL INTERVENTION REQUIRED" in shown
    assert "4711 dd (state D)" in shown
    assert r"/srv/app/a\nb`c\xff*\\x|<d>: No space left on device" in shown
    assert "... and 15 paths more" in shown
    assert "completed successfully" not in shown
    assert "Undone" not in shown


def test_differences_make_it_loud_even_when_the_outcome_does_not_say_so() -> None:
    shown = text.text(samples.tripped(differences=[PathNote("", "the hostname")]))
    assert "MANUAL INTERVENTION REQUIRED" in shown
    assert "Differs   the hostname" in shown


def test_success_is_short_and_says_how_to_undo() -> None:
    lines = text.text(samples.committed()).splitlines()
    assert lines[0] == "snapbreaker: committed (16.9 s)"
    assert "  Undo      snapbreaker rollback 000007-20261123T170000" in lines
    assert len(lines) <= 6  # one of them is of what others wrote


def test_an_undone_run_names_no_trip() -> None:
    shown = text.text(samples.undone())
    assert shown.startswith("snapbreaker: rolled back and verified\n")
    assert "snapbreaker --store /srv/store report 000007-20261123T170000" in shown


@pytest.mark.parametrize("sample", samples.ALL)
def test_there_are_never_two_empty_lines(sample: samples.Sample) -> None:
    assert "\n\n\n" not in text.text(sample())


def test_observed_issues_are_listed() -> None:
    shown = text.text(samples.observed())
    assert "observed, 3 issues, nothing was halted" in shown
    assert "TIMEOUT   no output for 30 s" in shown


def test_control_characters_of_the_machine_never_reach_the_terminal() -> None:
    evil = "\x1b]0;owned\x07\x9b31m\r\u202e"
    issue = Issue(IssueType.ERROR, evil, evil, evil, evil, 1)
    for make in (samples.tripped, samples.failed):
        report = dataclasses.replace(
            make(),
            issue=issue,
            error=evil,
            hint=evil,
            warnings=[evil],
            before=[Line(evil, 1, evil)],
            failures=[PathNote(evil, evil)],
            displaced=evil,
            command=[evil],
            id=evil,
        )
        assert all(line.isprintable() for line in text.text(report).splitlines())


def test_an_encoding_without_the_characters_is_no_obstacle() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    report = samples.tripped(warnings=["déjà vu"])
    stream.write(text.render(report, stream))
    assert "d\\xe9j\\xe0 vu" in text.render(report, stream)


ALONE = """
import sys
from snapbreaker.report import text
from snapbreaker.report.event_writer import EventWriter
from snapbreaker.report.events import Finished
from snapbreaker.report.saved import save_report
from tests.unit import report_samples as samples

reports = [sample() for sample in samples.ALL]
directory = sys.argv[1]
writer = EventWriter(2)

def refuse(event, arguments):
    if event == "import" or event == "open" and not str(arguments[0]).startswith((directory, ".report.json.")):
        raise RuntimeError(f"{event} {arguments}")

sys.addaudithook(refuse)
for report in reports:
    save_report(report, directory)
    sys.stdout.write(text.render(report, sys.stdout))
    writer.output("stdout", b"caf\\xc3")
    writer.write(Finished(0, report.outcome.value))
"""


@pytest.mark.real_commands
def test_nothing_is_imported_or_opened_while_saving_and_telling(tmp_path: Path) -> None:
    """The standard library may be gone by then: an interpreter that loaded only the report must do."""
    root = Path(text.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path)], cwd=root, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert done.stdout == "".join(text.text(sample()) for sample in samples.ALL)
