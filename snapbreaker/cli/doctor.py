"""`snapbreaker doctor`"""

from __future__ import annotations

import os
from typing import Any

import click

from snapbreaker import selection
from snapbreaker.checkpoint.create import covered
from snapbreaker.checkpoint.vault import orphans
from snapbreaker.cli.main import Settings
from snapbreaker.cli.options import SYSTEM, print_json
from snapbreaker.report.wording import path_text


@click.command()
@click.option("--scope", multiple=True, metavar="PATH", help="Directory to protect.  [default: the system]")
@click.option("--keep", multiple=True, metavar="PATH", help="Leave this out, with all below it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def doctor(settings: Settings, scope: tuple[str, ...], keep: tuple[str, ...], as_json: bool) -> None:
    """Which backend each volume would get, and for each of the others every reason why not."""
    found = covered(settings.store, scope or SYSTEM, keep, system=not scope)
    for volume in found.volumes:
        answers = selection.survey(volume)
        chosen = selection.first(answers)
        if as_json:
            print_json(_as_dict(volume, chosen, answers))
            continue
        click.echo(
            f"{path_text(volume.root)}: {chosen or 'NO BACKEND'}  ({volume.fstype} on {path_text(volume.source)})"
        )
        for name, availability in answers:
            click.echo(f"  {name}: {'available' if availability else 'not available'}")
            for reason in availability.reasons:
                click.echo(f"    - {reason.text}" + (f"; {reason.remedy}" if reason.remedy else ""))
            for note in availability.notes:
                click.echo(f"    {note}")
    for left in found.left_out:
        if as_json:
            print_json({"left_out": left.path, "why": left.why})
        else:
            click.echo(f"left out: {path_text(left.path)}: {left.why}")
    known = [record.id for record in settings.store.records()]
    for vault in sorted({path for volume in found.volumes for path in orphans(volume, known)}):
        if as_json:
            print_json({"vault": vault, "why": "this store has no record of it"})
        else:
            click.echo(f"vault without a record in this store: {path_text(vault)}; remove it if no other has")
    for text in [*_unmounted(), *_machine(settings)]:
        if as_json:
            print_json({"machine": text})
        else:
            click.echo(text)


def _as_dict(volume: Any, chosen: str | None, answers: list[tuple[str, Any]]) -> dict[str, Any]:
    return {
        "volume": volume.root,
        "fstype": volume.fstype,
        "source": volume.source,
        "chosen": chosen,
        "backends": {
            name: {
                "available": bool(availability),
                "reasons": [{"text": reason.text, "remedy": reason.remedy} for reason in availability.reasons],
                "notes": list(availability.notes),
            }
            for name, availability in answers
        },
    }


def _unmounted() -> list[str]:
    """What would hold a part of the system, were it mounted: what a run mounts and changes there stays changed."""
    from snapbreaker import layout
    from snapbreaker.linux.filesystems import Kind, kind
    from snapbreaker.linux.fstab import read_fstab
    from snapbreaker.linux.mountinfo import read_mounts
    from snapbreaker.paths import is_below

    mounted = {mount.mountpoint for mount in read_mounts() if kind(mount.fstype) is not Kind.KERNEL}
    points = {line.mountpoint.rstrip("/") for line in read_fstab() if kind(line.fstype) is Kind.LOCAL}
    lost = [point for point in points - mounted if any(is_below(point, place) for place in layout.SYSTEM)]
    return [
        f"not protected: {path_text(point)} is in fstab, and not mounted; mount {point}" for point in sorted(lost)
    ]


def _machine(settings: Settings) -> list[str]:
    """What of this machine bears on a run."""
    from snapbreaker.monitor.cgroup import Hierarchy
    from snapbreaker.system import boot_files, service

    lines = []
    if os.geteuid() != 0:
        lines.append("not root: other users' processes can neither be seen nor frozen")
    if Hierarchy.find() is None:
        lines.append("no cgroup v2: processes are found by parentage; one that escapes while we die may be missed")
    if reason := service.missing(settings.store.path):
        lines.append(
            f"a run cut off by a reboot is not finished at boot: {boot_files.NAME}: {reason}; "
            "snapbreaker install-service"
        )
    return lines
