"""The full report: the operator's sections, whatever characters the machine throws in."""

from __future__ import annotations

import dataclasses
import tomllib
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from snapbreaker.issue import Issue, IssueType
from snapbreaker.report.markdown import code_span, fence
from snapbreaker.report.model import Comparison, Line, PathNote, Report
from snapbreaker.report.render import Format, render
from snapbreaker.report.wording import path_text
from tests.unit import report_samples as samples

HOSTILE = [
    "ERROR: ```",
    "````` E: <script>alert(1)</script> `x`",
    "~~~ fatal: *not* _bold_ [link](x) &amp; | # > - 1.",
    "  leading and trailing  ",
    "# Heading",
    "E: \\`\\",
]


def parsed(text: str) -> list[Token]:
    return MarkdownIt().parse(text)


def fences(text: str) -> list[str]:
    return [token.content.removesuffix("\n") for token in parsed(text) if token.type == "fence"]


def headings(text: str) -> list[str]:
    tokens = parsed(text)
    return [tokens[n + 1].content for n, token in enumerate(tokens) if token.type == "heading_open"]


def with_line(line: str) -> Report:
    return samples.tripped(issue=Issue(IssueType.ERROR, "why", "pack/rule", line, "stdout", 42))


@pytest.mark.parametrize("sample", samples.ALL)
def test_the_sections_are_those_of_the_operator(sample: samples.Sample) -> None:
    shown = render(sample(), Format.MARKDOWN)
    assert headings(shown)[1:] == ["Reasoning", "Action", "Verification"]
    for label in ("Trigger", "Type", "Checkpoint Status", "Analysis", "Plan"):
        assert shown.count(f"\n**{label}:**") == 1


@pytest.mark.parametrize(
    ("sample", "status"),
    [
        (samples.tripped, "Rollback completed successfully"),
        (samples.failed, "Rollback failed - manual intervention required"),
        (samples.committed, "Not needed: "),
        (samples.not_started, "Not needed: the command was not started"),
        (samples.timed_out, "Rollback prepared - takes effect at reboot"),
    ],
)
def test_the_checkpoint_status_is_one_of_the_contract(sample: samples.Sample, status: str) -> None:
    assert f"**Checkpoint Status:** {status}" in render(sample(), Format.MARKDOWN)


@pytest.mark.parametrize("line", HOSTILE)
def test_the_exact_line_survives_its_fence(line: str) -> None:
    shown = render(with_line(line), Format.MARKDOWN)
    assert fences(shown)[0] == line
    assert f"> stdout:42  {line}" in fences(shown)[1].splitlines()
    assert headings(shown)[1:] == ["Reasoning", "Action", "Verification"]


@given(st.text(st.characters(blacklist_categories=["C", "Z"]), min_size=1))
def test_code_survives_in_fences_and_spans(text: str) -> None:
    assert fences(fence(text)) == [text]
    inline = parsed(f"x {code_span(text)} y")[1].children
    assert inline is not None
    assert [token.content for token in inline if token.type == "code_inline"] == [text]


@settings(max_examples=40)
@given(st.text(st.characters(blacklist_categories=["C", "Z"]), min_size=1))
def test_prose_is_not_taken_for_markup(words: str) -> None:
    shown = render(samples.tripped(warnings=[words]), Format.MARKDOWN)
    paragraph = next(t for t in parsed(shown) if t.type == "inline" and t.content.startswith("**Warning:**"))
    assert paragraph.children is not None
    rest = [token for token in paragraph.children if token.content not in ("", "Warning:")]
    assert "".join(token.content for token in rest) == " " + words


def test_context_marks_the_line_that_tripped() -> None:
    block = fences(render(samples.tripped(), Format.MARKDOWN))[1].splitlines()
    assert [line[0] for line in block] == [" ", " ", " ", ">", " "]
    assert block[1] == "  stdout:41  Applying migration 41\tok"


def test_the_plan_holds_rule_and_retry() -> None:
    shown = fences(render(samples.tripped(), Format.MARKDOWN))
    assert shown[3].startswith("snapbreaker rules allow 000007-")
    assert tomllib.loads(shown[4])["rule"][0]["type"] == "allow"
    assert shown[5] == "cd /srv/app && snapbreaker run --scope /srv/app -- ./deploy.sh --release '2026 11'"


def test_silence_has_no_allow_rule() -> None:
    shown = render(samples.timed_out(), Format.MARKDOWN)
    assert "[[rule]]" not in shown
    assert "--idle" in shown


def test_verification_names_what_was_compared_and_what_differs() -> None:
    good, bad = render(samples.tripped(), Format.MARKDOWN), render(samples.failed(), Format.MARKDOWN)
    assert "- paths: 168,000 compared in 2.3 s" in good
    assert "nothing differs" in good
    assert "NOT as it was at the checkpoint: 26 problems" in bad
    assert "- `/srv/app/data/24`: content" in bad
    assert path_text(samples.HOSTILE_PATH) in bad


def test_issues_found_beside_the_one_that_tripped_are_listed_apart() -> None:
    first = samples.tripped().issue
    assert first is not None
    later = dataclasses.replace(first, line="E: later", line_number=44)
    assert "more, found meanwhile" not in render(samples.tripped(issues=[first]), Format.MARKDOWN)
    shown = render(samples.tripped(issues=[first, later]), Format.MARKDOWN)
    assert "1 issue more, found meanwhile:" in shown
    assert "E: later" in fences(shown)
    assert "3 issues that would have tripped the breaker:" in render(samples.observed(), Format.MARKDOWN)


def test_what_was_compared_need_not_be_counted() -> None:
    shown = render(samples.tripped(compared=[Comparison("paths below /srv", seconds=0.25)]), Format.MARKDOWN)
    assert "- paths below /srv: compared in 250 ms" in shown
    assert "**Checkpoint Status:** Rollback completed successfully" in shown


def test_an_unverified_rollback_says_so() -> None:
    shown = render(samples.tripped(compared=[]), Format.MARKDOWN)
    assert "NOT VERIFIED" in shown
    assert "Rollback failed" in shown


class Page(HTMLParser):
    """Notes every tag and attribute, and that all are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.blocks: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)
        if tag == "pre":
            self.blocks.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "pre" in self.open:
            self.blocks[-1] += data


@pytest.mark.parametrize("line", HOSTILE)
def test_html_is_self_contained_and_lets_no_markup_in(line: str) -> None:
    report = dataclasses.replace(with_line(line), warnings=[line], command=[line], error=line)
    page = Page()
    page.feed(render(report, Format.HTML))
    assert not page.open
    assert not {"script", "img", "link", "iframe", "a"} & set(page.tags)
    assert {name for name, _ in page.attributes} <= {"lang", "charset", "http-equiv", "content", "name", "class"}
    assert page.blocks[0] == line


@pytest.mark.parametrize("sample", samples.ALL)
@pytest.mark.parametrize("form", list(Format))
def test_every_format_can_be_encoded_and_ends_with_a_newline(sample: samples.Sample, form: Format) -> None:
    report = dataclasses.replace(
        sample(), command=["\udcff\x1b"], cwd="/\udcfe", note="\udcfd", user="\udcfc", host="\udcfb"
    )
    report.kept.append("/\udcff")
    report.after.append(Line("\udcff", 1, "\ufffd"))
    report.left_out.append(PathNote("/\udcff", "\udcff"))
    assert render(report, form).encode("utf-8").endswith(b"\n")
