"""`snapbreaker rules list|check|learn|allow|expire`"""

from __future__ import annotations

from datetime import date
from typing import Any

import click

from snapbreaker.cli.main import Settings
from snapbreaker.cli.options import print_json
from snapbreaker.cli.rules_allow import allow
from snapbreaker.cli.rules_check import check, rule_set
from snapbreaker.cli.rules_expire import expire
from snapbreaker.cli.rules_learn import learn
from snapbreaker.monitor.hits import NONE, Hits, read_hits
from snapbreaker.monitor.packs import builtin_packs, today
from snapbreaker.monitor.rule import Rule
from snapbreaker.report.wording import count_text, line_text, path_text

TRIPS = 1  # the exit code of `rules check` for a log that would have halted the run


@click.group()
def rules() -> None:
    """What counts as an issue: list the rules, judge a recorded log by them, or learn from good ones."""


rules.add_command(learn)
rules.add_command(allow)
rules.add_command(check)
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
    for rule in rule_set(command or "", files, names).rules:
        hit = hits.get((rule.origin, rule.name), NONE)
        if own and not rule.line:
            continue
        if as_json:
            print_json(_facts(rule, hit))
        else:
            click.echo(f"{rule.type:<10}  {rule.full_name:<32}  {line_text(rule.reason)}")
            if about := _history(rule, hit):
                click.echo(f"{'':<12}{about}")


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
