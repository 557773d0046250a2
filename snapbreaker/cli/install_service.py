"""`snapbreaker install-service`"""

from __future__ import annotations

import click

from snapbreaker.cli.main import Settings


@click.command("install-service")
@click.option("--remove", is_flag=True, help="Take it away again.")
@click.pass_obj
def install_service(settings: Settings, remove: bool) -> None:
    """Have systemd finish, early at every boot, what a run left undone.

    A run that is cut off by a power cut or a reboot is rolled back before the machine's services start. Writes and
    enables snapbreaker-recover.service, which runs this very program.
    """
    from snapbreaker.errors import CheckpointError
    from snapbreaker.system import service

    try:
        done = service.remove() if remove else service.install(settings.store.path)
    except OSError as error:
        raise CheckpointError(f"{error.filename}: {error.strerror}", "run as root") from error
    for path in done:
        click.echo(f"{'removed' if remove else 'wrote'} {path}")
