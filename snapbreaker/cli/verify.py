"""`snapbreaker verify`"""

from __future__ import annotations

import click

from snapbreaker.cli.main import Settings
from snapbreaker.cli.options import chosen, print_changes
from snapbreaker.differences import differences, goal_of, system_differences
from snapbreaker.exits import Exit
from snapbreaker.narrator import TextNarrator


@click.command()
@click.argument("id", required=False)
@click.option("--last", is_flag=True, help="The newest checkpoint.")
@click.option(
    "--deep", is_flag=True, help="Compare every file's content, also where its times prove it unchanged."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def verify(settings: Settings, id: str | None, last: bool, deep: bool, as_json: bool) -> int:
    """Compare the machine with a checkpoint, and check that the checkpoint itself is whole.

    Exit 0: nothing differs. Exit 3: the differences are listed. Of a committed run only the paths that it
    changed are looked at.
    """
    record = chosen(settings.store, id, last, "verify")
    goal = goal_of(record)
    narrator = TextNarrator(-1 if as_json else settings.verbosity)
    found = [*differences(record, goal, deep, narrator.progress), *system_differences(record, goal)]
    narrator.wipe()
    print_changes(found, as_json)
    if not found and not as_json:
        click.echo(f"{record.id}: nothing differs", err=True)
    return Exit.MANUAL if found else Exit.OK
