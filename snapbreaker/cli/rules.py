"""`snapbreaker rules list|check|learn|allow`"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from snapbreaker.cli.options import here, print_json
from snapbreaker.cli.rules_allow import allow
from snapbreaker.cli.rules_learn import learn
from snapbreaker.config import configured
from snapbreaker.errors import UsageError
from snapbreaker.issue import Issue
from snapbreaker.monitor.judge import check_log, check_output
from snapbreaker.monitor.packs import builtin_packs
from snapbreaker.monitor.rule import Rule
from snapbreaker.monitor.rules import RuleSet
from snapbreaker.output_log import OutputReader
from snapbreaker.report.wording import line_text, path_text

CHECK_EXAMPLES = """\b
Examples:
  snapbreaker rules check deploy.log --command ./deploy.sh
  snapbreaker rules check --from 12 --rules new-rules.toml
"""
TRIPS = 1  # the exit code of `rules check` for a log that would have halted the run


@click.group()
def rules() -> None:
    """What counts as an issue: list the rules, judge a recorded log by them, or learn from good ones."""


rules.add_command(learn)
rules.add_command(allow)


@rules.command("list")
@click.option("--command", metavar="CMD", help="Only the packs that this command line is judged by.")
@click.option("--rules", "files", multiple=True, metavar="FILE", help="Add the rules of a file.")
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="Add a built-in pack.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(command: str | None, files: tuple[str, ...], profiles: tuple[str, ...], as_json: bool) -> None:
    """All rules, those that win first."""
    names = profiles if command is not None else (*profiles, *(n for n in builtin_packs() if n not in profiles))
    for rule in _rule_set(command or "", files, names).rules:
        if as_json:
            print_json(_facts(rule))
        else:
            click.echo(f"{rule.type:<10}  {rule.full_name:<32}  {line_text(rule.reason)}")


@rules.command(epilog=CHECK_EXAMPLES)
@click.argument("file", required=False)
@click.option("--from", "id", metavar="ID", help="Judge what this run was judged by: all of its sources.")
@click.option("--command", default="", metavar="CMD", help="The command line that printed it: chooses the packs.")
@click.option("--exit", "status", type=int, default=0, metavar="N", help="The exit status that the command had.")
@click.option("--strict", is_flag=True, help="A line that no success pattern expects is an issue, too.")
@click.option("--rules", "files", multiple=True, metavar="FILE", help="Add the rules of a file.")
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="Add a built-in pack.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.pass_context
def check(
    ctx: click.Context,
    file: str | None,
    id: str | None,
    command: str,
    status: int,
    strict: bool,
    files: tuple[str, ...],
    profiles: tuple[str, ...],
    as_json: bool,
) -> None:
    """Judge the recorded log FILE (- is standard input) exactly as `run` would have, or a recorded run.

    Ends with 0 when nothing trips, with 1 at the first issue.
    """
    if file is not None and id is None:
        issue = _first_issue(_rule_set(command, files, profiles), file, status, strict)
    elif file is None and id is not None:
        record = ctx.obj.store.resolve(id)
        rule_set = _rule_set(command or shlex.join(record.meta.command), files, profiles)
        pieces = ((piece.source, piece.data) for piece in OutputReader(record.path).read())
        issue = check_output(rule_set, pieces, status=status, strict=strict)
    else:
        raise UsageError("which log?", "give a FILE, or --from ID")
    if as_json:
        print_json({"issue": _verdict(issue) if issue else None})
    elif issue:
        click.echo(_sentence(issue))
    else:
        click.echo("no issue")
    if issue:
        ctx.exit(TRIPS)


def _rule_set(command: str, files: tuple[str, ...], profiles: tuple[str, ...]) -> RuleSet:
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--command {command!r}: {error}", "quote it as for a shell") from None
    return RuleSet.for_command(argv, [Path(file) for file in files], profiles, configured(here()))


def _first_issue(rule_set: RuleSet, file: str, status: int, strict: bool) -> Issue | None:
    if file == "-":
        return check_log(rule_set, sys.stdin.buffer, source="stdin", status=status, strict=strict)
    try:
        with open(file, "rb") as log:
            return check_log(rule_set, log, source=file, status=status, strict=strict)
    except OSError as error:
        raise UsageError(f"{path_text(file)}: cannot read the log: {error.strerror}") from None


def _verdict(issue: Issue) -> dict[str, Any]:
    return {
        "type": issue.type,
        "line_number": issue.line_number,
        "line": issue.line,
        "rule": issue.rule,
        "reason": issue.reason,
    }


def _sentence(issue: Issue) -> str:
    if not issue.line_number:
        return f"{issue.type}: {issue.reason}"
    place = f"line {issue.line_number}"
    return f"{issue.type} at {place}: {line_text(issue.line)}\n  {issue.reason} ({issue.rule}, {issue.source})"


def _facts(rule: Rule) -> dict[str, Any]:
    return {
        "rule": rule.full_name,
        "type": rule.type,
        "pattern": rule.source,
        "reason": rule.reason,
        "link": rule.link,
    }
