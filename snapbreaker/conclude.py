"""How a run, a rollback or a recovery ends: one report, one exit code."""

from __future__ import annotations

from snapbreaker.checkpoint.record import Record
from snapbreaker.checkpoint.states import State
from snapbreaker.commit import let_links_go
from snapbreaker.errors import SnapbreakerError
from snapbreaker.exits import Exit
from snapbreaker.issue import Issue, IssueType
from snapbreaker.linux.systemd import SystemdError
from snapbreaker.report.saved import save_report
from snapbreaker.sandbox.sandbox import drop
from snapbreaker.story import Story
from snapbreaker.system import holds


def conclude(record: Record, story: Story) -> int:
    """Save the report, tell it, and return the exit code: the only place that 1, 5 and 128+n come from.

    The record's state is on disk already; *rolled-back* there means that everything was compared.
    """
    code = _exit_code(record, story)
    try:
        holds.put_back(record.path)
    except SystemdError as error:
        story.warnings.append(f"apt's own timers are still stopped: {error} (`snapbreaker recover` tries again)")
    if record.state is not State.HELD:
        try:
            drop(record)
        except (OSError, SnapbreakerError) as error:
            story.warnings.append(f"what is left of its sandbox could not be removed: {error}")
    record.unreserve()
    report = story.report(code)
    try:
        save_report(report, record.path)
    except OSError as error:
        # The state itself is durable. What a person reads now is then all that there is of the report.
        story.warnings.append(f"the report could not be saved: {error}")
        report = story.report(code)
    story.narrator.finished(report)
    let_links_go(record)
    return code


def _exit_code(record: Record, story: Story) -> int:
    state = record.state
    if story.outcome is None:
        return Exit.OK if state in (State.COMMITTED, State.HELD) else Exit.INTERNAL
    if state is State.REBOOT_PENDING:
        return Exit.AT_REBOOT
    if state is State.FAILED or not story.outcome.verified:
        return Exit.MANUAL
    if story.verb == "rollback":
        return Exit.OK
    return _verified_code(story.issue)


def settled_code(record: Record) -> int:
    """The exit code of a run that has come to rest, when whoever was to tell it died before its exit."""
    state = record.state
    if state in (State.COMMITTED, State.HELD):
        return Exit.OK
    if state is State.REBOOT_PENDING:
        return Exit.AT_REBOOT
    if state is not State.ROLLED_BACK:
        return Exit.MANUAL
    noted = record.status.get("issue")
    return _verified_code(Issue.from_dict(noted) if isinstance(noted, dict) else None)


def _verified_code(issue: Issue | None) -> int:
    if issue is not None and issue.type is IssueType.INTERRUPTED and issue.signal:
        return 128 + issue.signal
    return Exit.ROLLED_BACK
