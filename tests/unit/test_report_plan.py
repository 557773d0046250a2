"""The allow rule and the commands that a report proposes really work when pasted."""

from __future__ import annotations

import shlex
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapbreaker.issue import Issue, IssueType
from snapbreaker.monitor.packs import parse_pack
from snapbreaker.monitor.rules import RuleSet
from snapbreaker.report import plan
from snapbreaker.report.phrases import context
from tests.unit import report_samples as samples

LINES = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1, max_size=700)


@given(LINES)
def test_the_rule_can_be_read_and_allows_its_line(line: str) -> None:
    """With the real rule engine: pasted into a file of its own."""
    pack = parse_pack(plan.allow_rule(line), "allow.toml", "allow")
    trip = parse_pack('[[rule]]\nname = "any"\ntype = "ERROR"\npattern = ".+"', "trip.toml", "trip")
    assert RuleSet([trip, pack]).judge(line, set()).issue is None


@given(st.text(st.characters(blacklist_categories=["Cs"])))
def test_toml_strings_are_read_back(text: str) -> None:
    assert tomllib.loads(f"x = {plan.toml_string(text)}")["x"] == text


def test_the_retry_command_repeats_the_run_as_it_was_called() -> None:
    report = samples.tripped(
        invocation=["./scripts/snapbreaker", "--store", "/srv/my store", "run", "--scope", "/srv"],
        record="/srv/my store/000007-20261123T170000",
        cwd="/srv/a b",
        command=["sh", "-c", "echo $X"],
    )
    assert shlex.split(plan.retry_command(report)) == [
        *("cd", "/srv/a b", "&&", "./scripts/snapbreaker", "--store", "/srv/my store", "run", "--scope", "/srv"),
        *("--", "sh", "-c", "echo $X"),
    ]
    assert plan.own_command(report, "verify", "7") == "./scripts/snapbreaker --store '/srv/my store' verify 7"


def test_a_run_with_its_own_directory_is_retried_from_where_it_was_called() -> None:
    report = samples.tripped(invocation=["snapbreaker", "run", "--cwd", "app"])
    assert plan.retry_command(report).startswith("snapbreaker run --cwd app ")


@pytest.mark.parametrize("kind", list(IssueType))
def test_there_is_advice_for_every_type(kind: IssueType) -> None:
    with_line = samples.tripped(issue=Issue(kind, "why", "rule", "a line", "stdout", 1))
    without = samples.tripped(issue=Issue(kind, "why", "rule"))
    assert plan.advice(with_line)
    assert plan.advice(without)
    assert not plan.can_be_allowed(without.issue)
    assert plan.can_be_allowed(with_line.issue) == (
        kind in (IssueType.ERROR, IssueType.WARNING, IssueType.SKIP, IssueType.UNEXPECTED)
    )


@pytest.mark.parametrize("rule", ["idle", "timeout", "confirm"])
def test_advice_after_a_timeout_names_the_option_that_set_it(rule: str) -> None:
    report = samples.tripped(issue=Issue(IssueType.TIMEOUT, "too late", rule))
    assert f"--{rule}" in plan.advice(report)


def test_a_health_check_is_not_shown_as_a_line_of_output() -> None:
    issue = Issue(IssueType.CHECK, "the health check failed", "check", "nginx -t")
    report = samples.tripped(issue=issue, before=(), after=())
    assert context(report) == ([], -1)
