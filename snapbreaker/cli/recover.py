"""`snapbreaker recover`"""

from __future__ import annotations

import click

from snapbreaker.cli.main import Settings
from snapbreaker.cli.options import narrator_for, told


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Events on standard output, one JSON object a line.")
@click.option("--early", is_flag=True, hidden=True, help="In an initramfs: only put files back.")
@click.pass_obj
def recover(settings: Settings, as_json: bool, early: bool) -> int:
    """Finish what a dead snapbreaker began.

    After a crash, a power cut or a SIGKILL: kills what is left of the command, rolls back and verifies. Does
    nothing when there is nothing to finish; may be run again at any time. Exit 0: all is sound; 3: look at the
    report; 5: reboot.
    """
    from snapbreaker import preload
    from snapbreaker.checkpoint.lock import Lock
    from snapbreaker.recover import recover as recover_all

    narrator = narrator_for(as_json, settings.verbosity)

    def work() -> int:
        preload.load()
        with Lock("recover"):
            return recover_all(settings.store, narrator, early)

    return told(narrator, work)
