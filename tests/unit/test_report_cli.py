"""`snapbreaker report` as it is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from snapbreaker.cli.main import VERBS, main
from snapbreaker.errors import CheckpointError, UsageError
from snapbreaker.exits import MEANING, Exit
from snapbreaker.exits import VERBS as CODES
from snapbreaker.report import text
from snapbreaker.report.model import Report
from snapbreaker.report.saved import save_report
from tests.unit import report_samples as samples

ID, OTHER = "000007-20261123T170000", "000008-20261123T180000"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for name, report in ((ID, samples.failed()), (OTHER, samples.committed())):
        (tmp_path / name).mkdir()
        save_report(report, tmp_path / name)
    return tmp_path


def call(store: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--store", str(store), "report", *arguments])


@pytest.mark.parametrize("which", [(ID,), ("7",), ("000007",)])
def test_by_id(store: Path, which: tuple[str, ...]) -> None:
    done = call(store, *which)
    assert done.exit_code == 0
    assert done.stdout == text.text(samples.failed())


def test_the_last(store: Path) -> None:
    assert call(store, "--last").stdout == text.text(samples.committed())


@pytest.mark.parametrize("arguments", [("--json",), ("--format", "json")])
def test_json_is_the_whole_report(store: Path, arguments: tuple[str, ...]) -> None:
    done = call(store, ID, *arguments)
    assert Report.from_dict(json.loads(done.stdout)) == samples.failed()


@pytest.mark.parametrize(("form", "start"), [("markdown", "# snapbreaker"), ("html", "<!doctype html>")])
def test_other_formats(store: Path, form: str, start: str) -> None:
    done = call(store, ID, "--format", form)
    assert done.exit_code == 0
    assert done.stdout.startswith(start)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("9",), UsageError),
        ((), UsageError),
        ((ID, "--json", "--format", "html"), UsageError),
    ],
)
def test_wrong_use_is_told(store: Path, arguments: tuple[str, ...], error: type[Exception]) -> None:
    assert isinstance(call(store, *arguments).exception, error)


def test_a_checkpoint_without_report_is_told(store: Path) -> None:
    (store / "000009-20261123T190000").mkdir()
    done = call(store, "9")
    assert isinstance(done.exception, CheckpointError)
    assert "no report yet" in str(done.exception)


def test_every_verb_is_in_the_table_of_exit_codes() -> None:
    assert set(CODES) == set(VERBS)
    assert all(Exit.OK in codes and Exit.USAGE not in codes for codes in CODES.values())
    assert set(MEANING) == set(Exit)
