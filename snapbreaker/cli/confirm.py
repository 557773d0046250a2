"""`snapbreaker confirm`"""

from __future__ import annotations

import click

from snapbreaker.cli.main import Settings


@click.command()
@click.argument("id", required=False)
@click.option("--last", is_flag=True, help="The newest checkpoint.")
@click.pass_obj
def confirm(settings: Settings, id: str | None, last: bool) -> None:
    """Say that a run which waits for confirmation (`run --confirm S`) may stay."""
    from snapbreaker import safety

    record = settings.store.resolve(id, last)
    safety.confirm(record)
    click.echo(f"confirmed {record.id}", err=True)
