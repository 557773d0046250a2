"""`snapbreaker confirm`"""

from __future__ import annotations

import click

from snapbreaker.checkpoint.states import State
from snapbreaker.cli.main import Settings
from snapbreaker.errors import CheckpointError


@click.command()
@click.argument("id", required=False)
@click.option("--last", is_flag=True, help="The newest checkpoint.")
@click.pass_obj
def confirm(settings: Settings, id: str | None, last: bool) -> None:
    """Say that a run which waits for confirmation (`run --confirm S`) may stay."""
    from snapbreaker import safety

    record = settings.store.resolve(id, last)
    if record.state is not State.CONFIRMING:
        raise CheckpointError(f"checkpoint {record.id} does not wait for confirmation: it is {record.state}")
    safety.confirm(record)
    click.echo(f"confirmed {record.id}", err=True)
