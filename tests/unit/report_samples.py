"""Reports as a run leaves them: one that tripped and was rolled back, and what can become of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from snapbreaker.doing import Doing
from snapbreaker.issue import Issue, IssueType
from snapbreaker.report.model import (
    Changes,
    Comparison,
    Halt,
    Line,
    Outcome,
    PathAspects,
    PathNote,
    Phase,
    Process,
    Report,
    VolumeReport,
)

START = 1_795_453_200.0
HOSTILE_PATH = "/srv/app/a\nb`c\udcff*\\x|<d>"


def tripped(**changed: Any) -> Report:
    """`ERROR: migration 42 failed`, rolled back and verified."""
    issue = Issue(
        type=IssueType.ERROR,
        reason="The line reports an error.",
        rule="default/level-error",
        line="ERROR: migration 42 failed (commit 3f2a9bc41d, took 0.31 s)",
        source="stdout",
        line_number=42,
        time=START + 13.2,
    )
    report = Report(
        id="000007-20261123T170000",
        command=["./deploy.sh", "--release", "2026 11"],
        outcome=Outcome.ROLLED_BACK,
        exit_code=1,
        invocation=["snapbreaker", "run", "--scope", "/srv/app"],
        note="weekly deploy",
        cwd="/srv/app",
        host="web1",
        user="ann",
        started=START,
        ended=START + 16.9,
        lines={"stdout": 43, "stderr": 2},
        issue=issue,
        before=[
            Line("stdout", 40, "Applying migration 40", START + 13.0),
            Line("stdout", 41, "Applying migration 41\tok", START + 13.1),
            Line(
                "stderr",
                2,
                "note: table orders has 12,000,000 rows, this may take a while, do not interrupt it, please",
            ),
        ],
        after=[Line("stdout", 43, "retrying", START + 13.3)],
        volumes=[VolumeReport("/srv/app", "filecopy", 0.31, 3_100_000, 0.012)],
        timeline=[
            Phase("checkpoint", START, 0.31, "1 volume"),
            Phase("run", START + 0.31, 12.9, "45 lines"),
            Phase("halt", START + 13.2, 0.004),
            Phase("restore", START + 13.3, 0.8, "214 paths put back, 12 taken away"),
            Phase("reconcile", START + 14.1, 0.2, "2 units restarted"),
            Phase("verify", START + 14.3, 2.5, "no difference"),
        ],
        doing=[Doing(4711, 1, 0, "./deploy.sh --release '2026 11'", "S", "do_wait", "the end of a child")],
        halt=Halt(reaction=0.0009, frozen=True, killed=7, seconds=0.004),
        changes=Changes(12, 201, 1, 3_100_000, [PathAspects(HOSTILE_PATH, ("content", "mtime"))]),
        compared=[Comparison("paths", 168_000, 2.3), Comparison("package versions", 312)],
        kept=["/srv/app/tmp"],
        left_out=[PathNote("/srv/app/nfs", "nfs4 is not a local filesystem")],
        foreign=[PathNote("/srv/app/upload", "written by sftp-server (pid 4, session-9.scope) meanwhile; stays")],
        units=[PathNote("nginx.service", "restarted: /etc/nginx/nginx.conf went back")],
        kernel=[PathNote("sysctl net.ipv4.ip_forward", "0, instead of 1")],
        displaced="/srv/app/.snapbreaker/000007-20261123T170000/restore.1",
        record="/var/lib/snapbreaker/000007-20261123T170000",
        warnings=["the clock was set back by 3 s during the run"],
    )
    return dataclasses.replace(report, **changed)


def failed() -> Report:
    """The same, but the rollback left differences and a survivor."""
    return tripped(
        outcome=Outcome.FAILED,
        exit_code=3,
        halt=Halt(0.0504, False, 6, 5.0, [Process(4711, "dd", "D")]),
        failures=[PathNote(HOSTILE_PATH, "No space left on device")],
        differences=[PathNote(f"/srv/app/data/{n}", "content") for n in range(25)],
    )


def committed() -> Report:
    return tripped(
        outcome=Outcome.COMMITTED,
        exit_code=0,
        issue=None,
        before=[],
        after=[],
        halt=None,
        compared=[],
        displaced="",
        timeline=[Phase("checkpoint", START, 0.31, "1 volume"), Phase("run", START + 0.31, 12.9, "45 lines")],
    )


def observed() -> Report:
    issue = tripped().issue
    assert issue is not None
    warning = dataclasses.replace(issue, type=IssueType.WARNING, line="warning: x" * 30, line_number=50)
    silence = Issue(IssueType.TIMEOUT, "no output for 30 s", "idle")
    found = {issue.rule: 2, "idle": 1}
    return dataclasses.replace(
        committed(), outcome=Outcome.OBSERVED, issues=[issue, warning, silence], found=found
    )


def not_started() -> Report:
    return Report(
        id="000008-20261123T170000",
        command=["true"],
        outcome=Outcome.NOT_STARTED,
        exit_code=4,
        error="/srv/app: no space left for the checkpoint: 3.1 GB needed, 1.2 GB free",
        hint="free some space, or narrow the scope with --scope",
    )


def timed_out() -> Report:
    silence = Issue(IssueType.TIMEOUT, "no output for 30 s", "idle", time=START + 43.2)
    return tripped(issue=silence, outcome=Outcome.REBOOT_PENDING, exit_code=5, compared=[])


def died() -> Report:
    """The command was ended by a signal; a sh script before had said 1."""
    issue = Issue(IssueType.EXIT, "killed by SIGSEGV", "exit", time=START + 13.2, signal=11, status=1)
    return tripped(issue=issue, signal=11, status=1)


def undone() -> Report:
    """`snapbreaker rollback` of a committed run."""
    return tripped(
        verb="rollback",
        invocation=["snapbreaker", "rollback", "--last"],
        record="/srv/store/000007-20261123T170000",
        exit_code=0,
        issue=None,
        before=[],
        after=[],
        halt=None,
    )


Sample = Callable[[], Report]
ALL: tuple[Sample, ...] = (tripped, failed, committed, observed, not_started, timed_out, died, undone)
