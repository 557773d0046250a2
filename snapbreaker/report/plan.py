"""What to do next: the allow rule that would justify the line that tripped, and the command to try again."""

from __future__ import annotations

import os
import re

from snapbreaker.checkpoint.store import DEFAULT
from snapbreaker.issue import Issue, IssueType
from snapbreaker.monitor.generalize import generalize
from snapbreaker.report.model import Report
from snapbreaker.report.wording import command_text

REASON = "say here why this line is harmless"

WORD = re.compile(r"[a-z]{3,}")

UNLINED = {
    IssueType.TIMEOUT: "Find out what it was waiting for, mend that, and run it again.",
    IssueType.EXIT: "Find out why the command failed (see its last lines), mend that, and run it again.",
    IssueType.CHECK: "The change raised no issue, but the machine was not healthy after it: mend that first.",
    IssueType.INTERRUPTED: "It was stopped on purpose; run it again when you want it.",
}

# By rule, where a type has several.
WAITED = {
    "idle": "If the silence is natural here, allow it more time with a larger --idle.",
    "timeout": "If it needs so long, allow it more time with a larger --timeout.",
    "recover": "Find out why snapbreaker or the machine went down, and run it again.",
    "confirm": "Run it again and confirm it in time, or allow more time with a larger --confirm.",
}


def allow_rule(line: str) -> str:
    """The rule as TOML, ready to paste into a file for ``--rules``."""
    words = WORD.findall(line.lower())[:4]
    return "\n".join(
        (
            "[[rule]]",
            f"name = {toml_string('-'.join(['allow', *(words or ['line'])]))}",
            'type = "allow"',
            f"pattern = {toml_string(generalize(line).pattern)}",
            f"reason = {toml_string(REASON)}",
        )
    )


def can_be_allowed(issue: Issue | None) -> bool:
    """Whether a line tripped that a rule could justify: silence or an exit status has none."""
    return issue is not None and bool(issue.line.strip()) and issue.type not in UNLINED


def advice(report: Report) -> str:
    """One or two sentences for a person."""
    issue = report.issue
    if issue is None:
        return ""
    if can_be_allowed(issue):
        return (
            "Mend the cause and run it again. Only if this line is known to be harmless, allow it, "
            "with your reason."
        )
    return WAITED.get(issue.rule) or UNLINED.get(issue.type, "Mend the cause and run it again.")


def retry_command(report: Report) -> str:
    """The exact command line that tries again."""
    words = list(report.invocation)
    line = command_text([*words, "--", *report.command])
    if report.cwd and not any(word == "--cwd" or word.startswith("--cwd=") for word in words):
        return f"cd {command_text([report.cwd])} && {line}"
    return line


def allow_command(report: Report) -> str:
    """The exact command line that allows the line that tripped, but for the reason."""
    return own_command(report, "rules", "allow", report.id, "--reason", REASON)


def own_command(report: Report, *words: str) -> str:
    """Another verb of snapbreaker, by the same program and on the same store."""
    store = os.path.dirname(report.record) or DEFAULT
    return command_text([report.invocation[0], *(("--store", store) if store != DEFAULT else ()), *words])


def toml_string(text: str) -> str:
    """A TOML string: literal where it can be, so that patterns stay readable."""
    if text.isprintable():
        if not set(text) & {'"', "\\"}:
            return f'"{text}"'
        if "'" not in text:
            return f"'{text}'"
    return '"' + "".join(_toml_character(c) for c in text) + '"'


def _toml_character(c: str) -> str:
    if c in '"\\':
        return "\\" + c
    if c.isprintable():
        return c
    return f"\\u{ord(c):04X}" if ord(c) < 0x10000 else f"\\U{ord(c):08X}"
