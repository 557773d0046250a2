"""The report on a terminal: a calm block for a trip, a short one for success, a loud one for a failed rollback.

It needs nothing but what is loaded: it works when files were just put back, or could not be. So the few colours
are SGR codes (console_codes(4)) of its own, and the alarm is red even where a library could not be imported.
"""

from __future__ import annotations

import os
from dataclasses import field
from typing import TextIO

from snapbreaker.dataclass import dataclass
from snapbreaker.report import plan
from snapbreaker.report.model import CheckpointStatus, Outcome, PathNote, Report
from snapbreaker.report.phrases import (
    changes_line,
    context,
    doing_lines,
    headline,
    issue_place,
    note_line,
    phase_detail,
    verdict,
)
from snapbreaker.report.wording import (
    clipped,
    count_text,
    line_text,
    path_text,
    seconds_text,
    wrapped,
)

WIDTH, NARROWEST = 80, 60
LABEL = 10
NOTES_SHOWN = 10
ISSUES_SHOWN = 20
_OF_EACH = 3  # of one rule
LONGEST_LINE = 2000

# SGR parameters, by what words mean.
GOOD, BAD, CAUTION, FAINT, STRONG = "32", "1;31", "33", "2", "1"


@dataclass(slots=True)
class Block:
    """Lines of a terminal; each is a list of (words, style)."""

    width: int = WIDTH
    lines: list[list[tuple[str, str]]] = field(default_factory=list)

    def line(self, text: str = "", style: str = "") -> None:
        self.lines.append([(text, style)])

    def gap(self) -> None:
        """One empty line, however often it is asked for."""
        if self.lines and self.lines[-1] != [("", "")]:
            self.line()

    def fact(self, label: str, text: str, style: str = "") -> None:
        """A label and words that are wrapped beside it."""
        for number, part in enumerate(wrapped(text, self.width - LABEL - 2)):
            self.lines.append([(f"  {'' if number else label:<{LABEL}}", FAINT), (part, style)])

    def command(self, command: str, label: str = "") -> None:
        """Never wrapped, so that it can be copied."""
        self.lines.append([(f"  {label:<{LABEL}}", FAINT), (command, STRONG)])


def text(report: Report, width: int = WIDTH) -> str:
    """The block without colour, ending with a newline."""
    return plain(block(report, width))


def plain(content: Block) -> str:
    return "".join("".join(words for words, _ in line).rstrip() + "\n" for line in content.lines)


def coloured(content: Block) -> str:
    return "".join("".join(_sgr(words, style) for words, style in line) + "\n" for line in content.lines)


def block(report: Report, width: int = WIDTH) -> Block:
    content = Block(max(NARROWEST, width))
    if report.checkpoint_status is CheckpointStatus.FAILED:
        _alarm(content)
    if report.outcome is Outcome.NOT_STARTED:
        _not_started(content, report)
    elif report.ended_well:
        _kept(content, report)
    else:
        _halted(content, report)
    return content


def render(report: Report, stream: TextIO) -> str:
    """The block as ``stream`` wants it: its width, its encoding, and in colour on a terminal."""
    content = block(report, _width(stream))
    words = coloured(content) if wants_colour(stream) else plain(content)
    encoding = stream.encoding or "utf-8"
    return words.encode(encoding, "backslashreplace").decode(encoding)


def wants_colour(stream: TextIO) -> bool:
    """Only on a terminal, and not with NO_COLOR (https://no-color.org) or TERM=dumb."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def _sgr(words: str, style: str) -> str:
    return f"\x1b[{style}m{words}\x1b[m" if style and words.strip() else words


def _width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or WIDTH
    except (OSError, ValueError):
        return WIDTH


def _alarm(content: Block) -> None:
    bar = "!" * content.width
    for row in (bar, CheckpointStatus.FAILED.upper().center(content.width), bar):
        content.line(row, BAD)
    content.gap()


def _not_started(content: Block, report: Report) -> None:
    content.line(f"snapbreaker: {headline(report)}", BAD)
    content.fact("Reason", line_text(report.error) or "refused beforehand")
    if report.hint:
        content.fact("Next", line_text(report.hint))
    _warnings(content, report)


def _kept(content: Block, report: Report) -> None:
    style = CAUTION if report.issues else GOOD
    content.line(f"snapbreaker: {headline(report)} ({seconds_text(report.seconds)})", style)
    shown = report.first_issues(_OF_EACH, ISSUES_SHOWN)
    for issue in shown:
        content.fact(issue.type, issue_place(issue) or line_text(issue.reason), CAUTION)
        if issue.line:
            content.fact("", clipped(line_text(issue.line).expandtabs(), content.width - LABEL - 2))
    if report.issues_found > len(shown):
        content.fact("", f"... and {report.issues_found - len(shown):,} more")
    if report.changes is not None:
        content.fact("Changed", changes_line(report.changes))
    _notes(content, "Others'", report.foreign)
    _warnings(content, report)
    if report.outcome is Outcome.COMMITTED:
        content.command(plan.own_command(report, "rollback", report.id), "Undo")
    if report.outcome is Outcome.HELD:
        content.command(plan.own_command(report, "checkpoint", "diff", report.id), "Look")
        content.command(plan.own_command(report, "confirm", report.id), "Keep")
        content.command(plan.own_command(report, "rollback", report.id), "Drop")


def _halted(content: Block, report: Report) -> None:
    failed = report.checkpoint_status is CheckpointStatus.FAILED
    content.line(f"snapbreaker: {headline(report)}", BAD if failed else STRONG)
    content.gap()
    _context(content, report)
    content.gap()
    _why(content, report)
    content.gap()
    _done(content, report)
    content.gap()
    _result(content, report, failed)
    _warnings(content, report)
    content.gap()
    _next(content, report, failed)


def _context(content: Block, report: Report) -> None:
    """The lines around the trip; the one that tripped is whole, the others are cut to the width."""
    rows, marked = context(report)
    if not rows:
        return
    width = max(len(place) for place, _ in rows)
    for number, (place, words) in enumerate(rows):
        head = f"{'>' if number == marked else ' '} {place:<{width}}  "
        words = words.expandtabs()
        if number == marked:
            content.lines.append([(head, BAD), (clipped(words, LONGEST_LINE), BAD)])
        else:
            content.lines.append([(head, FAINT), (clipped(words, max(20, content.width - len(head))), "")])


def _why(content: Block, report: Report) -> None:
    issue = report.issue
    if issue is None:
        if report.error:
            content.fact("Reason", line_text(report.error), BAD)
        return
    place = issue_place(issue)
    content.fact("Type", issue.type + (f" in {place}" if place else ""), BAD)
    content.fact("Rule", line_text(issue.rule))
    content.fact("Reason", line_text(issue.reason))
    _doing(content, report)


def _doing(content: Block, report: Report) -> None:
    """What its processes were at, as a tree."""
    for number, (indent, words, how) in enumerate(doing_lines(report.doing)):
        width = max(20, content.width - LABEL - 2 - len(indent))
        label = "" if number else "At work"
        content.lines.append([(f"  {label:<{LABEL}}", FAINT), (indent + clipped(words, width), "")])
        for part in wrapped(how, width - 2):
            content.lines.append([(" " * (LABEL + 2) + f"{indent}  {part}", FAINT)])


def _done(content: Block, report: Report) -> None:
    steps = [(phase.name, phase.seconds, line_text(phase_detail(report, phase))) for phase in report.timeline]
    width = max((len(name) for name, _, _ in steps), default=0)
    for number, (name, seconds, detail) in enumerate(steps):
        step = f"{name:<{width}} {seconds_text(seconds):>9}  "
        parts = wrapped(detail, max(20, content.width - LABEL - 2 - len(step)))
        for row, part in enumerate(parts):
            label = "" if number or row else "Done"
            content.lines.append([(f"  {label:<{LABEL}}", FAINT), ((" " * len(step) if row else step) + part, "")])
    if report.changes is not None:
        undone = report.checkpoint_status is CheckpointStatus.COMPLETED
        content.fact("Undone" if undone else "Changed", changes_line(report.changes) + " by the command")


def _result(content: Block, report: Report, failed: bool) -> None:
    status = report.checkpoint_status
    style = BAD if failed else GOOD if status is CheckpointStatus.COMPLETED else CAUTION
    content.fact("Result", f"{status} (exit {report.exit_code})", style)
    content.fact("", verdict(report), BAD if failed else "")
    for process in report.halt.survivors if report.halt else []:
        content.fact("Alive", f"{process.pid} {path_text(process.comm)} (state {process.state or '?'})", BAD)
    _notes(content, "Failed", report.failures)
    _notes(content, "Differs", report.differences)
    _notes(content, "Others'", report.foreign)
    if report.displaced and failed:
        content.fact("Saved", f"what was taken away lies in {path_text(report.displaced)}")


def _warnings(content: Block, report: Report) -> None:
    for warning in report.warnings:
        content.fact("Warning", line_text(warning), CAUTION)


def _notes(content: Block, label: str, notes: list[PathNote]) -> None:
    for note in notes[:NOTES_SHOWN]:
        content.fact(label, note_line(note), BAD)
    if len(notes) > NOTES_SHOWN:
        content.fact("", f"... and {count_text(len(notes) - NOTES_SHOWN, 'path')} more, all in the report", BAD)


def _next(content: Block, report: Report, failed: bool) -> None:
    if failed:
        content.fact("Next", "read the report, remove the cause, roll back again, compare again:")
        content.command(plan.own_command(report, "report", report.id, "--format", "markdown"))
        content.command(plan.own_command(report, "rollback", report.id))
        content.command(plan.own_command(report, "verify", report.id))
        return
    command = plan.own_command(report, "report", report.id, "--format", "markdown")
    advice = plan.advice(report) or line_text(report.hint)
    if not advice:
        content.command(command, "Report")
        return
    content.fact("Next", advice)
    if plan.can_be_allowed(report.issue):
        content.command(plan.allow_command(report))
    content.fact("", "The full report:")
    content.command(command)
