"""`snapbreaker rules learn`"""

from __future__ import annotations

import os
import shlex

import click

from snapbreaker.checkpoint.states import State
from snapbreaker.cli.main import Settings
from snapbreaker.cli.options import write_utf8
from snapbreaker.cli.rules_check import opened, rule_set
from snapbreaker.errors import UsageError
from snapbreaker.monitor.learn import Learned
from snapbreaker.output_log import recorded
from snapbreaker.report.wording import count_text, line_text

EXAMPLES = """\b
Examples:
  snapbreaker rules learn deploy.log > deploy.toml
  snapbreaker rules learn --from 12 > deploy.toml
  snapbreaker run --strict --rules deploy.toml -- ./deploy.sh
"""


@click.command(epilog=EXAMPLES)
@click.argument("files", nargs=-1, metavar="FILE...")
@click.option("--from", "ids", multiple=True, metavar="ID", help="Learn from what this run printed.")
@click.option("--command", default="", metavar="CMD", help="The command line that printed it: chooses the packs.")
@click.option("--rules", "others", multiple=True, metavar="FILE", help="Add the rules of a file.")
@click.option("--profile", "profiles", multiple=True, metavar="NAME", help="Add a built-in pack.")
@click.pass_obj
def learn(
    settings: Settings,
    files: tuple[str, ...],
    ids: tuple[str, ...],
    command: str,
    others: tuple[str, ...],
    profiles: tuple[str, ...],
) -> None:
    """Make success patterns for strict mode from recorded good runs (FILE - is standard input).

    The rules go to standard output, to be reviewed; what was generalised in them to standard error. Lines that
    are issues by the rules that judge the command here, your own too, are left out.
    """
    if not files and not ids:
        raise UsageError("nothing to learn from", "give a FILE, or --from ID")
    logs = [(os.path.basename(name), name) for name in files]
    names = {os.uname().nodename}
    for id in ids:
        record = settings.store.resolve(id)
        if record.state not in (State.COMMITTED, State.HELD):
            raise UsageError(f"run {record.id} did not end well ({record.state})", "learn from a good one")
        command = command or shlex.join(record.meta.command)
        logs += [(f"{record.id} {source}", str(path)) for source, path in recorded(record.path).items()]
    learned, rules = Learned(), rule_set(command, others, profiles)
    for name, path in logs:
        with opened(path) as stream:
            learned.read(rules, stream, name, names)
    write_utf8(learned.toml())
    click.echo(
        f"snapbreaker: {count_text(learned.lines, 'line')}, {count_text(len(learned.kinds), 'kind')}", err=True
    )
    for kind, count in learned.parts.most_common():
        click.echo(f"  {kind:<13} {count:>6}  such as {line_text(learned.examples[kind])}", err=True)
    for issue in learned.issues[:20]:
        place = f"{issue.source}:{issue.line_number}"
        click.echo(f"left out: {place} is {issue.type}: {line_text(issue.line)}", err=True)
