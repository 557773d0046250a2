"""`snapbreaker rules list|check|learn|allow|expire`"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import click

from snapbreaker.cli.main import Settings
from snapbreaker.cli.options import here, print_json
from snapbreaker.cli.rules_allow import allow
from snapbreaker.cli.rules_expire import expire
from snapbreaker.cli.rules_learn import learn
from snapbreaker.config import configured
from snapbreaker.errors import UsageError
from snapbreaker.issue import Issue
from snapbreaker.monitor.hits import NONE, Hits, read_hits
from snapbreaker.monitor.judge import Judge, check_log
from snapbreaker.monitor.lines import BLOCK, Line
from snapbreaker.monitor.packs import builtin_packs, today
from snapbreaker.monitor.rule import Rule
from snapbreaker.monitor.rules import RuleSet, Verdict
from snapbreaker.report.wording import count_text, line_text, path_text

TRIPS = 1  # the exit code of `rules check` for a log that would have halted the run


@click.group()
def rules() -> None:
    """What counts as an issue: list the rules, judge a recorded log by them, or learn from good ones."""


rules.add_command(learn)
rules.add_command(allow)
rules.add_command(expire)


@rules.command("list")
@click.option("--command", metavar="CMD", help="Only the packs that this command line is judged by.")
@click.option("--rules", "files", multiple=True, metavar="FILE", help="Add the rules of a file.")
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="Add a built-in pack.")
@click.option("--own", is_flag=True, help="Only those that did not come with snapbreaker.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def list_(
    settings: Settings,
    command: str | None,
    files: tuple[str, ...],
    profiles: tuple[str, ...],
    own: bool,
    as_json: bool,
) -> None:
    """All rules, those that win first, and how many lines each has decided in the runs of this store."""
    names = profiles if command is not None else (*profiles, *(n for n in builtin_packs() if n not in profiles))
    hits = read_hits(settings.store.path)
    for rule in _rule_set(command or "", files, names).rules:
        hit = hits.get((rule.origin, rule.name), NONE)
        if own and not rule.line:
            continue
        if as_json:
            print_json(_facts(rule, hit))
        else:
            click.echo(f"{rule.type:<10}  {rule.full_name:<32}  {line_text(rule.reason)}")
            if about := _history(rule, hit):
                click.echo(f"{'':<12}{about}")


@rules.command()
@click.argument("file")
@click.option("--command", default="", metavar="CMD", help="The command line that printed it: chooses the packs.")
@click.option("--exit", "status", type=int, default=0, metavar="N", help="The exit status that the command had.")
@click.option("--all", "every", is_flag=True, help="Each issue, and each line that a rule let through.")
@click.option("--strict", is_flag=True, help="A line that no success pattern expects is an issue, too.")
@click.option("--rules", "files", multiple=True, metavar="FILE", help="Add the rules of a file.")
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="Add a built-in pack.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.pass_context
def check(
    ctx: click.Context,
    file: str,
    command: str,
    status: int,
    every: bool,
    strict: bool,
    files: tuple[str, ...],
    profiles: tuple[str, ...],
    as_json: bool,
) -> None:
    """Judge the recorded log FILE (- is standard input) exactly as `run` would have.

    Ends with 0 when nothing trips, with 1 at the first issue.
    """
    rule_set = _rule_set(command, files, profiles)
    if every:
        _tell_all(rule_set, file, strict, as_json)
    issue = _first_issue(rule_set, file, status, strict)
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
    with _opened(file) as log:
        return check_log(rule_set, log, source=_source(file), status=status, strict=strict)


def _source(file: str) -> str:
    return "stdin" if file == "-" else file


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    """From its start, each time."""
    if file == "-":
        yield BytesIO(_stdin())
        return
    try:
        with open(file, "rb") as log:
            yield log
    except OSError as error:
        raise UsageError(f"{path_text(file)}: cannot read the log: {error.strerror}") from None


@cache
def _stdin() -> bytes:
    return sys.stdin.buffer.read()


def _tell_all(rule_set: RuleSet, file: str, strict: bool, as_json: bool) -> None:
    """Every line that a rule decided, in order."""
    judge: Judge

    def heard(line: Line, verdict: Verdict) -> None:
        rules = [rule for rule in (verdict.issue, verdict.passed) if rule] or judge.rules.masking(line.text)
        for rule in rules:
            if as_json:
                said = {"line_number": line.number, "line": line.text, "type": rule.type, "rule": rule.full_name}
                print_json({**said, "reason": rule.reason})
            else:
                click.echo(f"{line.number}: {rule.type} {rule.full_name}: {line_text(line.text)}")

    judge = Judge(rule_set, strict=strict, now=lambda: 0.0, heard=heard)
    with _opened(file) as log:
        while data := log.read(BLOCK):
            judge.feed(_source(file), data)
    judge.close(_source(file))


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
    return f"{issue.type} at line {issue.line_number}: {line_text(issue.line)}\n  {issue.reason} ({issue.rule})"


def _history(rule: Rule, hit: Hits) -> str:
    """Where a rule of the user's comes from and how old it is; of every rule, how often it hit."""
    parts = [f"{path_text(rule.origin)}:{rule.line}"] if rule.line else []
    if rule.added:
        parts.append(
            f"added {rule.added} ({(today() - rule.added).days} d ago)" + (f" by {rule.by}" if rule.by else "")
        )
    if rule.expires:
        parts.append(("expired " if rule.has_expired(today()) else "expires ") + str(rule.expires))
    if hit.count:
        parts.append(f"{count_text(hit.count, 'hit')}, last {date.fromtimestamp(hit.last)}")
    elif rule.line:
        parts.append("no hits")
    return ", ".join(parts)


def _facts(rule: Rule, hit: Hits) -> dict[str, Any]:
    return {
        "rule": rule.full_name,
        "type": rule.type,
        "pattern": rule.source,
        "reason": rule.reason,
        "link": rule.link,
        "origin": rule.origin if rule.line else "built in",
        "line": rule.line or None,
        "added": rule.added and rule.added.isoformat(),
        "by": rule.by,
        "expires": rule.expires and rule.expires.isoformat(),
        "expired": rule.has_expired(today()),
        "hits": hit.count,
        "last_hit": hit.last or None,
    }
