"""`snapbreaker attach`"""

from __future__ import annotations

import click

from snapbreaker import attach as following
from snapbreaker.cli.main import Settings
from snapbreaker.cli.options import narrator_for, told

EXAMPLES = """\b
Examples:
  snapbreaker run --on-hangup continue -- ./long-deploy
  snapbreaker attach
  snapbreaker attach 12 --json | jq -r 'select(.event == "output") | .text'
"""


@click.command(epilog=EXAMPLES)
@click.argument("id", required=False)
@click.option("--json", "as_json", is_flag=True, help="Events on standard output, as of `run --json`.")
@click.pass_obj
def attach(settings: Settings, id: str | None, as_json: bool) -> int:
    """Show the run that goes on now, or that of the checkpoint ID, from its start.

    First what it has printed, then what it prints, then its report; ends with its exit code. The run does not
    notice: Ctrl-C ends only the showing, and many may look on at once.
    """
    store = settings.store
    record = store.resolve(id) if id is not None else following.running(store)
    narrator = narrator_for(as_json, settings.verbosity)

    def follow() -> int:
        with narrator.replay(record) as show:
            for piece in following.pieces(record):
                show(piece.source, piece.data)
        report = following.verdict(record)
        narrator.replayed(report)
        return report.exit_code

    return told(narrator, follow)
