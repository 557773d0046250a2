"""The judge: what is judged when, and under which number."""

from __future__ import annotations

import io

import pytest

from snapbreaker.issue import IssueType
from snapbreaker.monitor import rule
from snapbreaker.monitor.judge import PATIENCE, Judge, check_log
from snapbreaker.monitor.packs import parse_pack
from snapbreaker.monitor.rules import RuleSet


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture(scope="module")
def rules() -> RuleSet:
    return RuleSet.for_command(["true"])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def judge(rules: RuleSet, clock: Clock) -> Judge:
    return Judge(rules, now=lambda: 5.0, monotonic=clock)


def test_an_issue_has_the_line_its_number_and_its_source(judge: Judge) -> None:
    assert judge.feed("stdout", b"one\ntwo\n") == []
    (issue,) = judge.feed("stdout", b"\x1b[31mERROR: migration 42 failed\x1b[0m\r\nfour\n")
    assert (issue.type, issue.line, issue.line_number) == (IssueType.ERROR, "ERROR: migration 42 failed", 3)
    assert (issue.source, issue.rule, issue.time) == ("stdout", "default/error-level", 5.0)
    assert issue.reason
    assert judge.lines == {"stdout": 4}


def test_sources_are_numbered_and_joined_apart(judge: Judge) -> None:
    judge.feed("stdout", b"a\nER")
    assert judge.feed("stderr", b"ROR: x\n") == []
    (issue,) = judge.feed("stdout", b"ROR: x\n")
    assert (issue.source, issue.line_number) == ("stdout", 2)


def test_invalid_utf8_and_nul(judge: Judge) -> None:
    (issue,) = judge.feed("s", b"\xff\x00ERROR: \xc3\x28\n")
    assert issue.line == "\ufffdERROR: \ufffd("


def test_a_progress_line_does_not_hide_a_warning(judge: Judge) -> None:
    (issue,) = judge.feed("s", b"start\n 10%\rwarning: disk is slow\r 20%\r100%\n")
    assert (issue.line, issue.line_number, issue.type) == ("warning: disk is slow", 2, IssueType.WARNING)


def test_an_endless_progress_line_is_judged_as_it_comes(judge: Judge) -> None:
    assert judge.feed("s", b"waiting\r") == []
    assert [i.line for i in judge.feed("s", b"E: could not get lock\r")] == ["E: could not get lock"]


def test_a_partial_line_is_judged_after_a_while(judge: Judge, clock: Clock) -> None:
    assert judge.deadline() is None
    assert judge.feed("s", b"ok\nERROR: no newline") == []
    assert judge.deadline() == clock.time + PATIENCE
    assert judge.settle() == []
    clock.time += PATIENCE
    (issue,) = judge.settle()
    assert (issue.line, issue.line_number) == ("ERROR: no newline", 2)
    assert judge.deadline() is None
    assert judge.feed("s", b" here\n") == [], "the same line is not reported twice by the same rule"
    assert [i.line_number for i in judge.feed("s", b"ERROR: again\n")] == [3]


def test_what_is_added_to_a_partial_line_makes_it_wait_again(judge: Judge, clock: Clock) -> None:
    judge.feed("s", b"Password")
    clock.time += PATIENCE / 2
    judge.feed("s", b" for root: ")
    assert judge.deadline() == clock.time + PATIENCE
    judge.feed("s", b"\n")
    assert judge.deadline() is None


def test_the_end_of_a_stream_judges_the_rest(judge: Judge) -> None:
    judge.feed("s", b"fatal: not a git repository")
    assert [i.line for i in judge.close("s")] == ["fatal: not a git repository"]
    assert judge.close("s") == []
    assert judge.close("never fed") == []


def test_a_line_of_megabytes_is_judged_in_pieces(judge: Judge) -> None:
    data = b"liberror-perl " * 60_000 + b" ERROR: here " + b"liberror-perl " * 60_000
    issues = [issue for i in range(0, len(data), 50_000) for issue in judge.feed("s", data[i : i + 50_000])]
    assert [(i.line_number, "ERROR: here" in i.line, len(i.line) <= 8192) for i in issues] == [(1, True, True)]
    assert judge.feed("s", b"\n" + data + b"\n")[0].line_number == 2


def test_one_octet_at_a_time(judge: Judge) -> None:
    issues = [i for octet in b"fine\r\nE: broken\r\n" for i in judge.feed("s", bytes([octet]))]
    assert [(i.line, i.line_number) for i in issues] == [("E: broken", 2)]


def test_context_and_what_followed(judge: Judge) -> None:
    judge.feed("out", b"".join(b"line %d\n" % n for n in range(1, 30)))
    (issue,) = judge.feed("err", b"hm\nERROR: x\nafter 1\n")
    judge.feed("out", b"after 2\npartial")
    assert [line.text for line in judge.context(4, until=issue)] == ["line 28", "line 29", "hm", "ERROR: x"]
    assert [line.text for line in judge.following(issue, 5)] == ["after 1", "after 2"]
    assert [(line.source, line.number, line.text) for line in judge.context(2)] == [
        ("out", 30, "after 2"),
        ("out", 31, "partial"),
    ]


def test_strict_wants_every_line_expected() -> None:
    pack = parse_pack(
        """
        [[rule]]
        name = "step"
        type = "expect"
        pattern = 'step \\d+ done'
        [[rule]]
        name = "known"
        type = "allow"
        pattern = 'warning: cold cache'
        reason = "first start"
        """,
        "x.toml",
        "x",
    )
    rules = RuleSet([*RuleSet.for_command([]).packs, pack])
    judge = Judge(rules, strict=True)
    assert judge.feed("s", b"step 1 done\n\n  \nwarning: cold cache\n") == []
    issues = judge.feed("s", b"step 2 done twice\nERROR: x\n")
    assert [(i.type, i.line_number, i.rule) for i in issues] == [
        (IssueType.UNEXPECTED, 5, "strict"),
        (IssueType.ERROR, 6, "default/error-level"),
    ]


def test_a_rule_without_needles_is_tried_on_every_line() -> None:
    pack = parse_pack('[[rule]]\nname="n"\ntype="ERROR"\npattern="^[0-9]+$"\n', "x", "x")
    judge = Judge(RuleSet([pack]))
    assert [i.line_number for i in judge.feed("s", b"a\n12\nb\n345\n")] == [2, 4]


@pytest.mark.parametrize(("status", "expected"), [(0, None), (3, IssueType.EXIT)])
def test_check_log(rules: RuleSet, status: int, expected: IssueType | None) -> None:
    issue = check_log(rules, io.BytesIO(b"all is well\nno newline"), source="log", status=status)
    assert (issue.type if issue else None) == expected
    first = check_log(rules, io.BytesIO(b"a\nERROR: 1\nERROR: 2"), source="log", status=1)
    assert first is not None
    assert (first.line, first.time) == ("ERROR: 1", 0.0)


GO_TEST = b"=== RUN   TestA\n2026/01/02 error: as expected\n--- PASS: TestA (0.00s)\nERROR: x\n"


def test_a_pack_joins_at_the_line_that_shows_its_tool() -> None:
    judge = Judge(RuleSet.for_command(["bash", "deploy.sh"]))
    assert judge.feed("s", b"WARNING: Running pip as the 'root' user can result in broken permissions.\n"), (
        "no pip yet"
    )
    warning = b"WARNING: Running pip as the 'root' user can result in broken permissions\n"
    assert judge.feed("s", b"Collecting deprecated\n" + warning) == []
    assert [issue.line for issue in judge.feed("s", b"ERROR: No matching distribution\n")] == [
        "ERROR: No matching distribution"
    ]


def test_a_pack_joins_when_its_program_runs(clock: Clock) -> None:
    running: list[str] = []
    judge = Judge(RuleSet.for_command(["./deploy"]), programs=lambda: running, monotonic=clock)
    line = b"debug1: load_hostkeys: fopen /x: No such file or directory\n"
    assert [issue.line_number for issue in judge.feed("s", b"Setting up warn (1.0) ...\n")] == [1]
    running.append("apt-get")
    assert judge.feed("s", b"Setting up warn (1.0) ...\n") == [], "looked again before the line tripped"
    assert judge.feed("s", line) == [], "the line itself tells of ssh"


def test_a_context_is_one_of_its_source_and_ends() -> None:
    judge = Judge(RuleSet.for_command(["go", "test"]))
    assert [issue.line_number for issue in judge.feed("a", GO_TEST)] == [4]
    judge.feed("a", b"=== RUN   TestB\n")
    assert len(judge.feed("b", b"2026/01/02 error: not in a test\n")) == 1
    assert len(judge.feed("a", b"--- FAIL: TestB (0.00s)\n")) == 1


def test_a_context_that_nothing_ends_is_over_after_its_lines() -> None:
    pack = parse_pack(
        """
        [[context]]
        name = "block"
        begin = "^BEGIN BLOCK"
        end = "^END BLOCK"
        lines = 3
        [[rule]]
        name = "in-block"
        type = "ERROR"
        pattern = "trouble"
        contexts = ["block"]
        """,
        "x.toml",
        "x",
    )
    judge = Judge(RuleSet([pack]))
    assert judge.feed("s", b"trouble\nBEGIN BLOCK\n") == []
    issues = judge.feed("s", b"trouble\nfine\ntrouble\ntrouble\nEND BLOCK\n")
    assert [issue.line_number for issue in issues] == [3, 5]


def test_what_was_prepared_has_nothing_to_compile_when_it_trips() -> None:
    """Also where the line brings in the pack of a tool that nobody has named."""
    judge = Judge(RuleSet.for_command(["true"]))
    while judge.prepare():
        pass
    before = [made.cache_info().misses for made in (rule.compiled, rule._required)]
    (issue,) = judge.feed("stdout", b"nginx: [emerg] bind() to 0.0.0.0:80 failed (98: Address already in use)\n")
    assert "web" in [pack.name for pack in judge.rules.packs]
    assert issue.line_number == 1
    assert [made.cache_info().misses for made in (rule.compiled, rule._required)] == before
