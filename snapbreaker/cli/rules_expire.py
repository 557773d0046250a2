"""`snapbreaker rules expire`"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path

import click

from snapbreaker.cli.options import here, print_json
from snapbreaker.config import NAME, SYSTEM, distrusted
from snapbreaker.errors import UsageError
from snapbreaker.monitor.packs import parse_pack, read_rules, today
from snapbreaker.monitor.rule import Pack, Rule
from snapbreaker.report.wording import line_text
from snapbreaker.rule_file import alone, write_text

EXAMPLES = """\b
Examples:
  snapbreaker rules expire                       which rules have expired
  snapbreaker rules expire --all                 take those out of the project's snapbreaker.toml
  snapbreaker rules expire allow-cache-is-cold   this one, expired or not
"""


@click.command(epilog=EXAMPLES)
@click.argument("name", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All that have expired.")
@click.option("--system", is_flag=True, help=f"Those of {SYSTEM}, not of the project's {NAME}.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def expire(name: tuple[str, ...], every: bool, system: bool, as_json: bool) -> None:
    """Take rules out of the project's snapbreaker.toml, or without arguments list those that have expired.

    The file is replaced atomically; all else in it stays as it is, comments too.
    """
    if name and every:
        raise UsageError("either NAMEs or --all")
    path = SYSTEM if system else Path(here()) / NAME
    if not (name or every):
        for rule in _expired(_pack(path)):
            _tell(rule, "expired", as_json)
        return
    if why := distrusted(path):
        raise UsageError(f"{path}: root would not use it: {why}")
    with alone(path):
        pack = _pack(path)
        if unknown := set(name) - {rule.name for rule in pack.rules}:
            raise UsageError(f"{path}: no rule is called {', '.join(sorted(unknown))}", "snapbreaker rules list")
        gone = [rule for rule in pack.rules if rule.name in name] if name else _expired(pack)
        if gone:
            write_text(path, without(read_rules(path), {rule.name for rule in gone}))
    for rule in gone:
        _tell(rule, "removed", as_json)


def without(text: str, names: Collection[str]) -> str:
    """The TOML ``text`` without the rules ``names``: each from its header to the next header or comment block.

    Raises UsageError where that cannot be done line by line.
    """
    kept: list[str] = []
    rules: Iterator[dict[str, object]] = iter(tomllib.loads(text).get("rule", []))
    drops = False
    for line in text.splitlines(keepends=True):
        if line.strip() == "[[rule]]":
            drops = next(rules, {}).get("name") in names
        elif line.startswith(("[", "#")):
            drops = False
        if not drops:
            kept.append(line)
    left = "".join(kept)
    before, after = tomllib.loads(text), _loads(left)
    before["rule"] = [rule for rule in before.get("rule", []) if rule.get("name") not in names]
    if after != before and not (not before["rule"] and after == {k: v for k, v in before.items() if k != "rule"}):
        raise UsageError("the file is not laid out rule by rule", "take the rules out with an editor")
    return left


def _loads(text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def _pack(path: Path) -> Pack:
    return parse_pack(read_rules(path) if path.exists() else "", str(path), "project")


def _expired(pack: Pack) -> list[Rule]:
    return [rule for rule in pack.rules if rule.has_expired(today())]


def _tell(rule: Rule, what: str, as_json: bool) -> None:
    if as_json:
        print_json({"rule": rule.name, what: True, "expires": rule.expires and rule.expires.isoformat()})
    else:
        since = f" on {rule.expires}" if rule.expires else ""
        click.echo(f"{what}{since if what == 'expired' else ''}: {rule.name}: {line_text(rule.reason)}")
