"""What a report says, in the operator's sections: Reasoning, Action, Verification."""

from __future__ import annotations

from collections.abc import Sequence

from snapbreaker.report import plan
from snapbreaker.report.document import Document, Mono, Section, Words
from snapbreaker.report.model import Changes, CheckpointStatus, Outcome, PathNote, Phase, Report
from snapbreaker.report.phrases import (
    changes_line,
    context,
    doing_lines,
    headline,
    issue_place,
    phase_detail,
    verdict,
    volume_line,
)
from snapbreaker.report.wording import command_text, count_text, line_text, path_text, seconds_text, time_text

SAMPLE_SHOWN = 30
NOTES_SHOWN = 200


def document(report: Report) -> Document:
    title = f"snapbreaker {report.verb} {report.id}: {headline(report)}"
    return Document(title, [reasoning(report), action(report), verification(report)])


def reasoning(report: Report) -> Section:
    section = Section("Reasoning")
    _trigger(section, report)
    section.say(report.issue.type if report.issue else "none", label="Type")
    section.say(report.checkpoint_status, label="Checkpoint Status")
    _analysis(section, report)
    _plan(section, report)
    return section


def action(report: Report) -> Section:
    section = Section("Action")
    section.say(Mono(command_text(report.command)), *_where(report), label="Command")
    if report.note:
        section.say(line_text(report.note), label="Note")
    if report.timeline:
        section.say("What was done:")
        section.items([_step(report, phase) for phase in report.timeline])
    if report.volumes:
        section.say("Checkpoint:")
        section.items([(volume_line(volume),) for volume in report.volumes])
    _notes(section, "Units", report.units)
    _notes(section, "Put back in the kernel", report.kernel)
    if report.displaced:
        section.say("What the restore took away lies in ", Mono(path_text(report.displaced)), ".")
    if report.record:
        section.say("Record: ", Mono(path_text(report.record)))
    for text in report.warnings:
        section.say(line_text(text), label="Warning")
    section.say(f"Exit code {report.exit_code}.")
    return section


def verification(report: Report) -> Section:
    section = Section("Verification")
    section.say(verdict(report))
    section.items([(_compared(item.what, item.count, item.seconds),) for item in report.compared])
    _notes(section, "Could not be put back", report.failures)
    _notes(section, "Differs from the checkpoint", report.differences)
    if report.halt and report.halt.survivors:
        rows: list[Words] = [
            (f"{p.pid} {path_text(p.comm)} (state {p.state or '?'})",) for p in report.halt.survivors
        ]
        section.say("Still alive after SIGKILL:")
        section.items(rows)
    if report.kept:
        section.say("Kept as it is by policy, and not compared:")
        section.items([(Mono(path_text(path)),) for path in report.kept])
    _notes(section, "Left out of the checkpoint", report.left_out)
    _notes(section, "Written by others during the run", report.foreign)
    return section


def _trigger(section: Section, report: Report) -> None:
    issue = report.issue
    if issue is None:
        section.say(line_text(report.error) or "none: no issue was found", label="Trigger")
    elif issue.line:
        section.say(issue_place(issue), label="Trigger")
        section.show(line_text(issue.line))
    else:
        section.say(line_text(issue.reason), label="Trigger")


def _analysis(section: Section, report: Report) -> None:
    if report.issue is not None:
        section.say(
            "Rule ", Mono(path_text(report.issue.rule)), ": ", line_text(report.issue.reason), label="Analysis"
        )
    else:
        section.say(*_no_issue(report), label="Analysis")
    rows, marked = context(report)
    if rows:
        section.say("Output around it:" if marked >= 0 else "Last lines of output:")
        width = max(len(place) for place, _ in rows)
        lines = [f"{'>' if n == marked else ' '} {place:<{width}}  {text}" for n, (place, text) in enumerate(rows)]
        section.show("\n".join(lines), marked=marked)
    if report.doing:
        section.say("What its processes were at:")
        tree = [f"{indent}{words}\n{indent}  {how}" for indent, words, how in doing_lines(report.doing)]
        section.show("\n".join(tree))
    _other_issues(section, report)
    if report.changes is not None:
        _changed(section, report.changes, report.outcome is Outcome.HELD)


def _no_issue(report: Report) -> Words:
    if report.outcome is Outcome.NOT_STARTED:
        return (
            line_text(report.error) or "Refused beforehand.",
            *((" ", line_text(report.hint)) if report.hint else ()),
        )
    if report.ended_well:
        lines = sum(report.lines.values())
        return (f"{count_text(lines, 'line')} of output, none of them an issue.",)
    return (
        (line_text(report.error),) if report.error else ("Asked for by ", Mono(f"snapbreaker {report.verb}"), ".")
    )


def _other_issues(section: Section, report: Report) -> None:
    """What would have tripped it (observed), or was found beside the issue before everything stood still."""
    issues = [issue for issue in report.issues if issue != report.issue]
    if not issues:
        return
    what = "that would have tripped the breaker" if report.ended_well else "more, found meanwhile"
    count = report.issues_found - (report.issue in report.issues)
    section.say(f"{count_text(count, 'issue')} {what}:")
    for issue in issues[:NOTES_SHOWN]:
        section.say(
            f"{issue_place(issue) or line_text(issue.reason)} (rule ",
            Mono(path_text(issue.rule)),
            ")",
            label=issue.type,
        )
        if issue.line:
            section.show(line_text(issue.line))
    _and_more(section, count - min(len(issues), NOTES_SHOWN))
    if len(report.found) > 1:
        rows = sorted(report.found.items(), key=lambda item: -item[1])
        section.items([(Mono(path_text(rule)), f": {number:,}") for rule, number in rows[:NOTES_SHOWN]])


def _changed(section: Section, changes: Changes, waits: bool) -> None:
    section.say(f"The command {'changed' if waits else 'had changed'}: {changes_line(changes)}.")
    rows: list[Words] = [(Mono(path_text(p.path)), " (" + ", ".join(p.aspects) + ")") for p in changes.sample]
    section.items(rows[:SAMPLE_SHOWN])
    _and_more(section, changes.total - min(len(rows), SAMPLE_SHOWN))


def _plan(section: Section, report: Report) -> None:
    if report.outcome is Outcome.HELD:
        keep, drop = (plan.own_command(report, verb, report.id) for verb in ("confirm", "rollback"))
        section.say("Keep it: ", Mono(keep), "; drop it: ", Mono(drop), label="Plan")
        return
    if report.kept_change:
        undo = plan.own_command(report, "rollback", report.id)
        if report.outcome is Outcome.COMMITTED:
            section.say("Nothing to do. The change can still be undone: ", Mono(undo), label="Plan")
        else:
            section.say("Nothing to do." if not report.issues else "Judge the issues above.", label="Plan")
        return
    if report.checkpoint_status is CheckpointStatus.FAILED:
        section.say(*manual_steps(report), label="Plan")
    elif report.issue is not None:
        section.say(plan.advice(report), label="Plan")
    else:
        section.say(line_text(report.hint) or "Mend the cause and run it again.", label="Plan")
    if report.issue is not None and plan.can_be_allowed(report.issue):
        section.say("Allow it:")
        section.show(plan.allow_command(report), "sh")
        section.say("which adds this rule to snapbreaker.toml:")
        section.show(plan.allow_rule(report.issue.line), "toml")
    if report.verb == "run" and report.command:
        failed = report.checkpoint_status is CheckpointStatus.FAILED
        section.say("Only after that, try again:" if failed else "Try again:")
        section.show(plan.retry_command(report), "sh")


def manual_steps(report: Report) -> Words:
    """What to do when a rollback failed."""
    return (
        "Read under Verification what differs. Once its cause is gone (a full disk, a file held open), ",
        Mono(plan.own_command(report, "rollback", report.id)),
        " tries again; ",
        Mono(plan.own_command(report, "verify", report.id)),
        " compares again.",
    )


def _where(report: Report) -> Words:
    words: list[str | Mono] = []
    if report.cwd:
        words += [" in ", Mono(path_text(report.cwd))]
    if report.host:
        words.append(f" on {line_text(report.host)}")
    if report.user:
        words.append(f" by {line_text(report.user)}")
    if report.started:
        words.append(f", started {time_text(report.started)}, took {seconds_text(report.seconds)}")
    return tuple(words)


def _step(report: Report, phase: Phase) -> Words:
    detail = phase_detail(report, phase)
    offset = max(0.0, phase.started - report.started)
    text = f" at +{offset:.2f} s, took {seconds_text(phase.seconds)}"
    return (Mono(phase.name), text + (f": {line_text(detail)}" if detail else ""))


def _compared(what: str, count: int, seconds: float) -> str:
    return (
        f"{what}: "
        + (f"{count:,} compared" if count else "compared")
        + (f" in {seconds_text(seconds)}" if seconds else "")
    )


def _notes(section: Section, label: str, notes: Sequence[PathNote]) -> None:
    if not notes:
        return
    section.say(f"{label}:")
    section.items([_note(note) for note in notes[:NOTES_SHOWN]])
    _and_more(section, len(notes) - NOTES_SHOWN)


def _note(note: PathNote) -> Words:
    if not note.path:
        return (line_text(note.text),)
    return (Mono(path_text(note.path)), ": " + line_text(note.text))


def _and_more(section: Section, count: int) -> None:
    if count > 0:
        section.say(f"... and {count:,} more.")
