"""`snapbreaker rules check`"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import click

from snapbreaker.cli.options import here, print_json
from snapbreaker.config import configured
from snapbreaker.errors import UsageError
from snapbreaker.issue import Issue
from snapbreaker.monitor.judge import Judge, check_output
from snapbreaker.monitor.lines import BLOCK, Line
from snapbreaker.monitor.rules import RuleSet, Verdict
from snapbreaker.output_log import OutputReader
from snapbreaker.report.wording import line_text, path_text

EXAMPLES = """\b
Examples:
  snapbreaker rules check deploy.log --command ./deploy.sh
  snapbreaker rules check --from 12 --rules new-rules.toml
  snapbreaker rules check --all deploy.log        what decided each line
"""
TRIPS = 1  # the exit code for a log that would have halted the run


@click.command(epilog=EXAMPLES)
@click.argument("file", required=False)
@click.option("--from", "id", metavar="ID", help="Judge what this run was judged by: all of its sources.")
@click.option("--command", default="", metavar="CMD", help="The command line that printed it: chooses the packs.")
@click.option("--exit", "status", type=int, default=0, metavar="N", help="The exit status that the command had.")
@click.option("--all", "every", is_flag=True, help="Each issue, and each line that a rule let through.")
@click.option("--strict", is_flag=True, help="A line that no success pattern expects is an issue, too.")
@click.option("--rules", "files", multiple=True, metavar="FILE", help="Add the rules of a file.")
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="Add a built-in pack.")
@click.option("--json", "as_json", is_flag=True, help="As JSON; with --all one object a line, the verdict last.")
@click.pass_context
def check(ctx: click.Context, /, file: str | None, id: str | None, **options: Any) -> None:
    """Judge the recorded log FILE (- is standard input) exactly as `run` would have.

    Ends with 0 when nothing trips, with 1 at the first issue.
    """
    command, as_json = options["command"], options["as_json"]
    if (file is None) == (id is None):
        raise UsageError("which log?", "give a FILE, or --from ID")
    if id is not None:
        record = ctx.obj.store.resolve(id)
        command = command or shlex.join(record.meta.command)
        reader = OutputReader(record.path)
        pieces = ((piece.source, piece.data) for piece in chain(reader.read(), reader.rest()))
        rules = rule_set(command, options["files"], options["profiles"], record.meta.cwd)
        issue = _judged(rules, pieces, options)
    else:
        rules = rule_set(command, options["files"], options["profiles"])
        with opened(file or "") as log:
            issue = _judged(rules, _blocks(log, "stdin" if file == "-" else file or ""), options)
    if as_json:
        print_json({"issue": _verdict(issue) if issue else None})
    else:
        click.echo(_sentence(issue) if issue else "no issue")
    if issue:
        ctx.exit(TRIPS)


def rule_set(command: str, files: Iterable[str], profiles: tuple[str, ...], project: str = "") -> RuleSet:
    """Those that judge ``command`` in the directory ``project``, by default here. Raises UsageError."""
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--command {command!r}: {error}", "quote it as for a shell") from None
    return RuleSet.for_command(argv, [Path(file) for file in files], profiles, configured(project or here()))


def _judged(rules: RuleSet, pieces: Iterable[tuple[str, bytes]], options: dict[str, Any]) -> Issue | None:
    if options["every"]:
        pieces = list(pieces)
        _tell_all(rules, pieces, options["strict"], options["as_json"])
    return check_output(rules, pieces, status=options["status"], strict=options["strict"])


def _tell_all(rules: RuleSet, pieces: Iterable[tuple[str, bytes]], strict: bool, as_json: bool) -> None:
    """Every line that a rule decides, in order."""
    judge: Judge

    def heard(line: Line, verdict: Verdict) -> None:
        for rule in [rule for rule in (verdict.issue, verdict.passed) if rule] or judge.rules.masking(line.text):
            if as_json:
                place = {"source": line.source, "line_number": line.number, "line": line.text}
                print_json({**place, "type": rule.type, "rule": rule.full_name, "reason": rule.reason})
            else:
                click.echo(f"{line.number}: {rule.type} {rule.full_name}: {line_text(line.text)}")

    judge = Judge(rules, strict=strict, now=lambda: 0.0, heard=heard)
    sources = set()
    for source, data in pieces:
        judge.feed(source, data)
        sources.add(source)
    for source in sorted(sources):
        judge.close(source)


@contextmanager
def opened(file: str) -> Iterator[BinaryIO]:
    """A recorded log; ``-`` is standard input. Raises UsageError, also when it cannot be read inside the block."""
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        with open(file, "rb") as log:
            yield log
    except OSError as error:
        raise UsageError(f"{path_text(file)}: cannot read the log: {error.strerror}") from None


def _blocks(log: BinaryIO, source: str) -> Iterator[tuple[str, bytes]]:
    while data := log.read(BLOCK):
        yield source, data


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
