"""`snapbreaker confirm`"""

from __future__ import annotations

import click

from snapbreaker.checkpoint.record import Record
from snapbreaker.cli.main import Settings
from snapbreaker.cli.options import narrator_for, told
from snapbreaker.narrator import Narrator


@click.command()
@click.argument("id", required=False)
@click.option("--last", is_flag=True, help="The newest checkpoint.")
@click.option("--json", "as_json", is_flag=True, help="Events on standard output, one JSON object a line.")
@click.pass_obj
def confirm(settings: Settings, id: str | None, last: bool, as_json: bool) -> int:
    """Say that the change of a run may stay.

    Of one that waits for that (`run --confirm S`), or of one that is held in its sandbox (`run --hold`): what
    it would change comes to the machine now. If that fails it is all taken back: exit 1.
    """
    from snapbreaker import safety
    from snapbreaker.checkpoint.states import State

    record = settings.store.resolve(id, last)
    if record.state is State.HELD:
        narrator = narrator_for(as_json, settings.verbosity)
        return told(narrator, lambda: _bring_over(record, narrator))
    safety.confirm(record)
    click.echo(f"confirmed {record.id}", err=True)
    return 0


def _bring_over(record: Record, narrator: Narrator) -> int:
    from snapbreaker import preload
    from snapbreaker.checkpoint.lock import Lock
    from snapbreaker.sandbox import held_run

    preload.load()
    with Lock(f"confirm {record.id}"):
        return held_run.confirm(record, narrator)
