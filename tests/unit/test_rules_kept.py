"""Rules over time: how often each decided a line, which have expired, and what they let through."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from snapbreaker.cli.main import main
from snapbreaker.cli.rules_expire import without
from snapbreaker.errors import SnapbreakerError, UsageError
from snapbreaker.issue import Issue, IssueType
from snapbreaker.monitor.hits import NAME, add_hits, read_hits
from snapbreaker.monitor.judge import Judge
from snapbreaker.monitor.packs import parse_pack
from snapbreaker.monitor.rules import RuleSet

PROJECT = """\
# kept by hand
[pack]
name = "shop"

[[rule]]
name = "old"
type = "allow"
pattern = 'WARN cache: .*'
reason = "fills itself"
added = 2020-01-01
expires = 2020-02-01
by = "ann"

# about the next one
[[rule]]
name = "new"
type = "allow"
pattern = '''WARN [[]disk[]] .*'''
reason = "a test disk"

[[rule]]
name = "last"
type = "ERROR"
pattern = 'schema \\\\d+ is old'
reason = "migrate first"
expires = 2020-02-01
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "snapbreaker.toml").write_text(PROJECT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SNAPBREAKER_STORE", str(tmp_path / "store"))
    (tmp_path / "store").mkdir(mode=0o700)
    return tmp_path


def call(*arguments: str, text: str = "") -> tuple[int, list[str]]:
    result = CliRunner().invoke(main, ["rules", *arguments], input=text)
    if isinstance(result.exception, SnapbreakerError):
        return result.exception.exit_code, [str(result.exception)]
    return result.exit_code, (result.stdout + result.stderr).splitlines()


def test_hits_are_added_up(tmp_path: Path) -> None:
    add_hits(tmp_path, Counter({("a.toml", "x"): 2}))
    add_hits(tmp_path, {("a.toml", "x"): 1, ("default.toml", "failed"): 5})
    found = read_hits(tmp_path)
    assert {rule: hit.count for rule, hit in found.items()} == {("a.toml", "x"): 3, ("default.toml", "failed"): 5}
    (tmp_path / NAME).write_text("{")
    assert read_hits(tmp_path) == {}
    add_hits(tmp_path / "nowhere", {("a", "b"): 1})


def test_the_judge_counts_lines_not_looks() -> None:
    own = parse_pack("[[rule]]\nname='ok'\ntype='allow'\npattern='WARN cold'\nreason='r'\n", "own.toml", "own")
    judge = Judge(RuleSet([*RuleSet.for_command([]).packs, own]))
    judge.feed("s", b"WARN cold\nfine\nERROR x\nWARN cold\nERR")
    judge.feed("s", b"OR y\n")
    assert judge.hits["own.toml", "ok"] == 2
    assert judge.hits["default.toml", "error-level"] + judge.hits["default.toml", "error-word"] == 2


def test_list_tells_origin_age_and_hits(project: Path) -> None:
    add_hits(project / "store", {(str(project / "snapbreaker.toml"), "new"): 3})
    status, lines = call("list", "--own")
    text = "\n".join(lines)
    assert status == 0
    assert f"{project}/snapbreaker.toml:5, added 2020-01-01 (" in text
    assert "by ann, expired 2020-02-01, no hits" in text
    assert "3 hits, last 20" in text
    facts = {row["rule"]: row for row in map(json.loads, call("list", "--json")[1])}
    assert facts["shop/new"]["hits"] == 3
    assert facts["shop/old"]["expired"] is True
    assert facts["default/failed"]["origin"] == "built in"


def test_expired_ones_are_listed_and_taken_out(project: Path) -> None:
    file = project / "snapbreaker.toml"
    assert call("expire") == (
        0,
        ["expired on 2020-02-01: old: fills itself", "expired on 2020-02-01: last: migrate first"],
    )
    assert file.read_text() == PROJECT
    assert call("expire", "--all") == (0, ["removed: old: fills itself", "removed: last: migrate first"])
    left = file.read_text()
    assert left.startswith("# kept by hand\n[pack]\n")
    assert '# about the next one\n[[rule]]\nname = "new"' in left
    assert "old" not in left
    assert "last" not in left
    assert call("expire", "new")[0] == 0
    assert parse_pack(file.read_text(), "f", "n").rules == ()
    status, lines = call("expire", "new")
    assert status == 2
    assert "no rule is called new" in lines[0]


def test_a_file_that_is_laid_out_otherwise_is_left_alone() -> None:
    with pytest.raises(UsageError, match="rule by rule"):
        without("rule = [{name = 'a', type = 'ERROR', pattern = 'x', reason = 'r'}]", ["a"])


def test_check_all_tells_what_decided_each_line(project: Path) -> None:
    log = "WARN [disk] full\nfine\n0 errors found\nE: broken\nskipped\n"
    status, lines = call("check", "-", "--all", text=log)
    assert status == 1
    assert "1: allow shop/new: WARN [disk] full" in lines
    assert "3: mask default/count-of-zero: 0 errors found" in lines
    assert any(line.startswith("4: ERROR default/") for line in lines)
    assert any(line.startswith("5: SKIP default/") for line in lines)
    assert lines[-2].startswith("ERROR at line 4: ")


def test_observed_issues_are_bounded_and_all_counted() -> None:
    from snapbreaker.monitor.trip import Trip
    from snapbreaker.monitor.watched import Watched

    watched = Watched()
    trip = Trip(Judge(RuleSet.for_command([])), None, watched, True)  # type: ignore[arg-type]
    for number in range(5000):
        trip.found([Issue(IssueType.ERROR, "r", f"rule{number % 2}", "x", "s", number)])
    assert watched.found == {"rule0": 2500, "rule1": 2500}
    assert len(watched.issues) == 40
    assert watched.issue is None


def test_learn_judges_by_the_rules_of_the_project(project: Path) -> None:
    """What is an issue here is no success, and what is allowed here is."""
    (project / "snapbreaker.toml").write_text(
        "[[rule]]\nname = 'cold'\ntype = 'allow'\npattern = 'WARN cache is cold'\nreason = 'it fills itself'\n"
        "[[rule]]\nname = 'old'\ntype = 'ERROR'\npattern = 'schema is old'\n"
    )
    (project / "log").write_text("WARN cache is cold\nschema is old\nall done\n")
    code, lines = call("learn", "log")
    assert code == 0
    examples = [line for line in lines if line.startswith("examples")]
    assert examples == ['examples = ["WARN cache is cold"]', 'examples = ["all done"]']
    assert "left out: log:2 is ERROR: schema is old" in lines
