"""The sentences that the terminal block and the full report share."""

from __future__ import annotations

from collections.abc import Iterable

from snapbreaker.doing import Doing
from snapbreaker.issue import Issue, IssueType
from snapbreaker.report.model import (
    Changes,
    CheckpointStatus,
    Line,
    Outcome,
    PathNote,
    Phase,
    Report,
    VolumeReport,
)
from snapbreaker.report.wording import count_text, line_text, path_text, seconds_text, size_text


def verdict(report: Report) -> str:
    """One sentence: what was compared, and what came of it."""
    found = len(report.differences) + len(report.failures)
    if report.checkpoint_status is CheckpointStatus.COMPLETED:
        stays = sum(note.text.endswith("; stays") for note in report.foreign)
        but = f" but {count_text(stays, 'file')} that others wrote meanwhile" if stays else ""
        return f"The machine was compared with the checkpoint, and nothing differs{but}."
    if found:
        return f"NOT as it was at the checkpoint: {count_text(found, 'problem')}, listed below."
    if report.outcome in (Outcome.NOT_STARTED, Outcome.HELD):
        return "Nothing was compared: nothing was changed."
    if report.kept_change:
        return "Nothing was compared: the change stays."
    if report.outcome is Outcome.REBOOT_PENDING:
        return "Not yet: it is compared after the reboot."
    if not report.compared:
        return "NOT VERIFIED: the machine was not compared with the checkpoint."
    return "What was compared does not differ, but the rollback did not complete."


def headline(report: Report) -> str:
    """The first thing to know, in a few words."""
    match report.checkpoint_status:
        case CheckpointStatus.COMPLETED:
            return _cause(report) + "rolled back and verified"
        case CheckpointStatus.FAILED:
            return _cause(report) + "ROLLBACK FAILED"
        case CheckpointStatus.PENDING:
            return _cause(report) + "rolled back at the next reboot"
        case CheckpointStatus.NONE:
            return "not started, nothing was changed"
        case CheckpointStatus.HELD:
            return "held in its sandbox, the machine is as it was"
        case CheckpointStatus.OBSERVED:
            return f"observed, {count_text(report.issues_found, 'issue')}, nothing was halted"
    return "committed" if report.outcome is Outcome.COMMITTED else "success"


def changes_line(changes: Changes) -> str:
    """``12 added, 3 changed, 1 removed (3.1 MB)``."""
    if not changes.total:
        return "nothing"
    counts = f"{changes.added:,} added, {changes.changed:,} changed, {changes.removed:,} removed"
    return f"{counts} ({size_text(changes.size)})"


def issue_place(issue: Issue) -> str:
    """``stderr, line 42``; empty where the issue has no line."""
    if not issue.source:
        return ""
    return path_text(issue.source) + (f", line {issue.line_number:,}" if issue.line_number else "")


def context(report: Report) -> tuple[list[tuple[str, str]], int]:
    """The lines around the trip as (``source:number``, text), and the index of the one that tripped (-1: none)."""
    issue = report.issue
    if issue is None or not issue.line or not issue.line_number:  # a health check's text is no line of output
        return [_row(line) for line in (*report.before, *report.after)], -1
    tripped = Line(issue.source, issue.line_number, issue.line)
    before = [line for line in report.before if (line.source, line.number) != (tripped.source, tripped.number)]
    return [_row(line) for line in (*before, tripped, *report.after)], len(before)


def doing_lines(doing: Iterable[Doing]) -> list[tuple[str, str, str]]:
    """Of each process how far it is indented in the tree, its command line, and how it is."""
    return [("  " * one.depth, f"{one.pid} {line_text(one.command)}", line_text(one.how)) for one in doing]


def note_line(note: PathNote) -> str:
    return f"{path_text(note.path)}: {line_text(note.text)}" if note.path else line_text(note.text)


def volume_line(volume: VolumeReport) -> str:
    text = f"Volume {path_text(volume.root)}: {volume.backend}, recorded in {seconds_text(volume.seconds)}"
    text += f", {size_text(volume.size)} extra" if volume.size else ""
    return text + (f", writers frozen for {seconds_text(volume.frozen)}" if volume.frozen else "")


def phase_detail(report: Report, phase: Phase) -> str:
    """What is to be said of a phase; the halt is told from its own figures."""
    halt = report.halt
    if phase.name != "halt" or halt is None:
        return phase.detail
    frozen = "tree frozen" if halt.frozen else "tree NOT wholly frozen (killed all the same)"
    text = f"{frozen} in {seconds_text(halt.reaction)}, {count_text(halt.killed, 'process', 'processes')} killed"
    return text + (f", {len(halt.survivors)} SURVIVED" if halt.survivors else "")


def _cause(report: Report) -> str:
    if report.issue is None:
        return ""
    return "interrupted, " if report.issue.type is IssueType.INTERRUPTED else f"tripped by {report.issue.type}, "


def _row(line: Line) -> tuple[str, str]:
    return f"{path_text(line.source)}:{line.number}", line_text(line.text)
