"""`snapbreaker rules allow`"""

from __future__ import annotations

import os
import re
from datetime import date, timedelta
from pathlib import Path

import click

from snapbreaker.cli.main import Settings
from snapbreaker.cli.options import here
from snapbreaker.config import NAME, SYSTEM, distrusted
from snapbreaker.errors import UsageError
from snapbreaker.monitor.generalize import generalize
from snapbreaker.monitor.lines import PIECE, decode, printed
from snapbreaker.monitor.packs import parse_pack, read_rules, today
from snapbreaker.report import plan
from snapbreaker.report.saved import load_report
from snapbreaker.rule_file import alone, write_text

EXAMPLES = """\b
Examples:
  snapbreaker rules allow --last --reason 'the cache is cold after a deploy'
  snapbreaker rules allow --line 'WARN cache is cold' --reason 'it fills itself' --expires 30d
"""
_WORD = re.compile(r"[a-z]{3,}")


@click.command(epilog=EXAMPLES)
@click.argument("id", required=False)
@click.option("--last", is_flag=True, help="The line that tripped the newest run.")
@click.option("--line", metavar="TEXT", help="This line instead.")
@click.option("--reason", required=True, metavar="TEXT", help="Why the line is harmless; it is kept.")
@click.option("--expires", metavar="WHEN", help="The last day it counts: 2027-01-31, or 30d from today.")
@click.option("--system", is_flag=True, help=f"Store it in {SYSTEM}, not in the project's {NAME}.")
@click.pass_obj
def allow(
    settings: Settings,
    id: str | None,
    last: bool,
    line: str | None,
    reason: str,
    expires: str | None,
    system: bool,
) -> None:
    """Let the line that tripped pass from now on, and others of its kind.

    What differs from run to run (numbers, versions, times ...) is generalised. The rule goes into snapbreaker.toml
    of the directory in which the command ran, which every run there reads.
    """
    if not reason.strip():
        raise UsageError("--reason is empty", "say why the line is harmless")
    if reason.strip() == plan.REASON:
        raise UsageError("--reason is still the text of the report", "say why the line is harmless")
    if sum((id is not None, last, line is not None)) != 1:
        raise UsageError("which line?", "give an ID, --last or --line TEXT")
    text, directory = (
        (decode(printed(os.fsencode(line))), here()) if line is not None else _tripped(settings, id, last)
    )
    if not text.strip():
        raise UsageError("the line is empty")
    text = text.strip("\r\n")
    if parts := re.findall("[\r\n]+", text):
        raise UsageError(f"--line is a text of {len(parts) + 1} lines, and each is judged by itself", "give one")
    if len(text.encode()) > PIECE:
        raise UsageError(f"--line is longer than what is judged in one go, {PIECE:,} octets")
    path = SYSTEM if system else Path(directory) / NAME
    if why := distrusted(path):
        raise UsageError(f"{path}: root would not use it: {why}", "--system, or make it root's alone")
    pattern, until = generalize(text).pattern, _day(expires)
    with alone(path):
        old = read_rules(path) if path.exists() else ""
        taken = {rule.name for rule in parse_pack(old, str(path), "project").rules}
        whole = (old.rstrip("\n") + "\n\n" if old.strip() else "") + _rule(
            _name(text, taken), pattern, decode(os.fsencode(reason)), until
        )
        parse_pack(whole, str(path), "project")
        write_text(path, whole)
    click.echo(f"{path}: lines like this are allowed now:\n  {pattern}")


def _tripped(settings: Settings, id: str | None, last: bool) -> tuple[str, str]:
    report = load_report(settings.store.resolve(id, last).path)
    if report.issue is None or not plan.can_be_allowed(report.issue):
        raise UsageError(f"no line tripped run {report.id}", "a silence, an exit status or a check has none")
    return report.issue.line, report.cwd or here()


def _name(text: str, taken: set[str]) -> str:
    base = name = "-".join(["allow", *(_WORD.findall(text.lower())[:4] or ["line"])])
    number = 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name


def _rule(name: str, pattern: str, reason: str, expires: date | None) -> str:
    who = os.environ.get("SUDO_USER") or os.environ.get("USER") or str(os.getuid())
    until = f"expires = {expires}\n" if expires else ""
    return (
        f'[[rule]]\nname = {plan.toml_string(name)}\ntype = "allow"\npattern = {plan.toml_string(pattern)}\n'
        f"reason = {plan.toml_string(reason)}\nadded = {today()}\nby = {plan.toml_string(who)}\n{until}"
    )


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        if days := re.fullmatch(r"(\d{1,5})d", text):
            return today() + timedelta(days=int(days[1]))
        day = date.fromisoformat(text)
    except (ValueError, OverflowError):
        raise UsageError(f"--expires {text} is no day", "2027-01-31, or 30d") from None
    if day < today():
        raise UsageError(f"--expires {text} is past: the rule would never count")
    return day
