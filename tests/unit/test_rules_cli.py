"""`snapbreaker rules list|check`"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from snapbreaker.checkpoint.record import Meta, Record
from snapbreaker.checkpoint.store import Store
from snapbreaker.cli.main import Settings
from snapbreaker.cli.rules import rules
from snapbreaker.errors import UsageError
from snapbreaker.output_log import OutputLog

BAD = "Reading package lists...\nE: Unable to locate package nginx-lite\n"


def invoke(*arguments: str, stdin: bytes = b"") -> Result:
    settings = Settings(Store("/nowhere"), 0)
    result = CliRunner().invoke(rules, arguments, input=stdin, obj=settings)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "run.log"
    path.write_text(BAD)
    return path


def test_check_finds_the_line(log: Path) -> None:
    result = invoke("check", str(log), "--command", "sudo apt-get install nginx-lite", "--json")
    assert result.exit_code == 1
    assert json.loads(result.output) == {
        "issue": {
            "type": "ERROR",
            "line_number": 2,
            "line": "E: Unable to locate package nginx-lite",
            "rule": "default/error-mark",
            "reason": "a mark that only errors carry",
        }
    }


def test_check_of_a_good_log(tmp_path: Path) -> None:
    (tmp_path / "good.log").write_text("Setting up liberror-perl (0.17029-2) ...\n")
    result = invoke("check", str(tmp_path / "good.log"), "--json")
    assert (result.exit_code, json.loads(result.output)) == (0, {"issue": None})
    assert invoke("check", str(tmp_path / "good.log")).output == "no issue\n"


def test_check_says_it_for_a_person(log: Path) -> None:
    result = invoke("check", str(log))
    assert result.output.startswith("ERROR at line 2: E: Unable to locate package nginx-lite\n")
    assert "default/error-mark" in result.output


def test_check_reads_standard_input() -> None:
    assert invoke("check", "-", stdin=b"ok\nfatal: \xff\x1b[0m boom").exit_code == 1
    assert invoke("check", "-", stdin=b"").exit_code == 0


def test_check_judges_the_exit_status(tmp_path: Path) -> None:
    (tmp_path / "silent.log").write_text("")
    result = invoke("check", str(tmp_path / "silent.log"), "--exit", "3", "--json")
    issue = json.loads(result.output)["issue"]
    assert (result.exit_code, issue["type"], issue["line_number"], issue["rule"]) == (1, "EXIT", 0, "exit")
    assert (
        "EXIT: the command ended with status 3"
        in invoke("check", str(tmp_path / "silent.log"), "--exit", "3").output
    )


def test_check_strict(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("anything\n")
    result = invoke("check", str(tmp_path / "x.log"), "--strict", "--json")
    assert json.loads(result.output)["issue"]["type"] == "UNEXPECTED"


def test_rule_files_and_profiles(log: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("[[rule]]\nname='ok'\ntype='allow'\npattern='E: Unable .*'\nreason='known'\n")
    assert invoke("check", str(log), "--rules", str(mine)).exit_code == 0
    line = b"debconf: unable to initialize frontend: Dialog\n"
    assert invoke("check", "-", stdin=line).exit_code == 1
    assert invoke("check", "-", "--profile", "apt", stdin=line).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "/nonexistent.log"], "/nonexistent.log: cannot read the log: No such file"),
        (["check", "/"], "cannot read the log: Is a directory"),
        (["check", "-", "--rules", "/nonexistent.toml"], "/nonexistent.toml: cannot read the rules"),
        (["check", "-", "--profile", "nope"], "no rule pack 'nope'"),
        (["check", "-", "--command", "sh -c 'x"], "No closing quotation"),
        (["list", "--profile", "nope"], "no rule pack 'nope'"),
    ],
)
def test_bad_usage(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        invoke(*arguments)
    assert message in caught.value.message


def test_list() -> None:
    every = [json.loads(line) for line in invoke("list", "--json").output.splitlines()]
    assert {"apt/no-init", "default/failed"} <= {rule["rule"] for rule in every}
    assert all(
        {"rule", "type", "pattern", "reason", "link", "origin", "hits", "expires"} <= set(rule) for rule in every
    )
    some = invoke("list", "--command", "true").output
    assert "default/failed" in some
    assert "apt/" not in some


def test_a_recorded_run_is_judged_by_the_rules_of_where_it_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where `rules allow` puts them, wherever we are now."""
    project, store = tmp_path / "project", tmp_path / "store"
    project.mkdir()
    record = Record(store / "000007-20261126T120000")
    record.path.mkdir(parents=True)
    record.save_meta(Meta(record.id, 7, "run", 0.0, ["./deploy.sh"], str(project), ["/srv"], []))
    log = OutputLog(record.path)
    log.output("stdout", b"ERROR: known\n")
    log.close()
    monkeypatch.chdir(tmp_path)
    settings = Settings(Store(store))
    assert CliRunner().invoke(rules, ["check", "--from", "7"], obj=settings).exit_code == 1
    rule = "[[rule]]\nname = 'known'\ntype = 'allow'\npattern = 'ERROR: known'\nreason = 'it is'\n"
    (project / "snapbreaker.toml").write_text(rule)
    assert CliRunner().invoke(rules, ["check", "--from", "7"], obj=settings).exit_code == 0


def test_a_recorded_run_is_judged_by_all_of_its_sources(tmp_path: Path) -> None:
    record = Record(tmp_path / "000007-20261126T120000")
    record.path.mkdir()
    record.save_meta(Meta(record.id, 7, "run", 0.0, ["./deploy.sh"], "/", ["/srv"], []))
    log = OutputLog(record.path)
    for source, data in (("stdout", b"one\ntw"), ("/srv/app.log", b"ERROR: in the log\n"), ("stdout", b"o\n")):
        log.output(source, data)
    log.close()
    result = CliRunner().invoke(rules, ["check", "--from", "7"], obj=Settings(Store(tmp_path)))
    assert result.exit_code == 1, result.output
    assert result.output.startswith("ERROR at line 1: ERROR: in the log\n")
    assert result.output.endswith(", /srv/app.log)\n")
    with (record.path / "output.index").open("ab") as index:  # a power cut
        index.write(b"\0\0\0\n")
    assert (
        CliRunner().invoke(rules, ["check", "--from", "7"], obj=Settings(Store(tmp_path))).output == result.output
    )
    for words in (["check"], ["check", "run.log", "--from", "7"]):
        with pytest.raises(UsageError, match="which log"):
            invoke(*words)
