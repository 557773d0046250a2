"""`snapbreaker checkpoint create|list|show|diff|delete|prune|pin`"""

from __future__ import annotations

import os
import time
from typing import Any

import click

from snapbreaker.checkpoint.lock import Lock
from snapbreaker.checkpoint.record import Record
from snapbreaker.checkpoint.states import State
from snapbreaker.cli.main import Settings
from snapbreaker.cli.options import SYSTEM, chosen, here, narrator_for, print_json
from snapbreaker.errors import CheckpointError, SnapbreakerError
from snapbreaker.exits import Exit
from snapbreaker.files.remove import removal_told
from snapbreaker.narrator import TextNarrator
from snapbreaker.report.wording import path_text


class _Group(click.Group):
    """`diff` is a file of its own, imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), "diff"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "diff":
            from snapbreaker.cli.checkpoint_diff import diff

            return diff
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Group)
def checkpoint() -> None:
    """Make, look at and remove checkpoints."""


@checkpoint.command()
@click.option("--scope", multiple=True, metavar="PATH", help="Directory to record.  [default: the system]")
@click.option("--keep", multiple=True, metavar="PATH", help="Leave this out, with all below it.")
@click.option("--backend", metavar="NAME", help="Use this backend instead of the best one.")
@click.option("--note", default="", metavar="TEXT", help="Kept with the checkpoint.")
@click.option("--json", "as_json", is_flag=True, help="Events on standard output, one JSON object a line.")
@click.pass_obj
def create(
    settings: Settings,
    scope: tuple[str, ...],
    keep: tuple[str, ...],
    backend: str | None,
    note: str,
    as_json: bool,
) -> None:
    """Make a checkpoint by hand, to go back to with `snapbreaker rollback`."""
    from snapbreaker.checkpoint.create import Request
    from snapbreaker.checkpoint.create import create as create_checkpoint
    from snapbreaker.checkpoint.owner import Owner
    from snapbreaker.signals import interruptible

    narrator = narrator_for(as_json, settings.verbosity)
    owners = (Owner.of(os.getpid()),)
    request = Request(
        scope or SYSTEM,
        keep,
        system=not scope,
        backend=backend,
        kind="manual",
        cwd=here(),
        note=note,
        owners=owners,
    )
    narrator.starting("checkpoint", request)
    with Lock("checkpoint create"), interruptible():
        record = create_checkpoint(settings.store, request, narrator.progress)
    narrator.checkpointed(record)
    if not as_json:
        click.echo(record.id)


@checkpoint.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def list_(settings: Settings, as_json: bool) -> None:
    """All checkpoints, oldest first."""
    records = settings.store.records()
    for record in records:
        facts = _facts(record)
        if as_json:
            print_json(facts)
        else:
            click.echo(f"{record.id}  {facts['state']:<12} {_mark(facts)} {path_text(facts['title'])}")
    if not records and not as_json:
        click.echo(f"no checkpoint in {settings.store.path}", err=True)


@checkpoint.command()
@click.argument("id", required=False)
@click.option("--last", is_flag=True, help="The newest checkpoint.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.pass_obj
def show(settings: Settings, id: str | None, last: bool, as_json: bool) -> None:
    """What one checkpoint holds."""
    record = chosen(settings.store, id, last, "show")
    if as_json:
        print_json({**record.meta.as_dict(), "status": record.status, "pinned": record.pinned})
        return
    for name, value in _description(record):
        click.echo(f"{name + ':':<10} {path_text(value)}")


@checkpoint.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--force", is_flag=True, help="Also pinned, failed, pending or unfinished ones.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for each checkpoint.")
@click.pass_obj
def delete(settings: Settings, ids: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Remove checkpoints, with what they could undo."""
    from snapbreaker.checkpoint.discard import discard

    with Lock("checkpoint delete"):
        settings.store.refuse_outdated()
        records = {record.id: record for record in (settings.store.resolve(id) for id in ids)}.values()
        for record in records:
            reason, in_use = _in_the_way(record)
            if in_use:
                raise CheckpointError(f"checkpoint {record.id} is in use", "wait for it to end")
            if reason and not force:
                raise CheckpointError(f"checkpoint {record.id} is {reason}", "--force removes it all the same")
        with removal_told(TextNarrator(settings.verbosity).progress):
            for record in records:
                discard(record, leave_unreachable=force)
                if as_json:
                    print_json({"id": record.id, "deleted": True})


@checkpoint.command()
@click.option("--count", type=click.IntRange(min=0), default=20, show_default=True, help="Keep at most so many.")
@click.option("--days", type=click.FloatRange(min=0), default=30.0, show_default=True, help="Keep none older.")
@click.option("--dry-run", is_flag=True, help="Only say which would go.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for each checkpoint.")
@click.pass_obj
def prune(settings: Settings, count: int, days: float, dry_run: bool, as_json: bool) -> int:
    """Remove old checkpoints, never a pinned, failed or unfinished one. `run` does so after each success."""
    from snapbreaker.checkpoint.discard import discard
    from snapbreaker.checkpoint.retention import Retention

    code, narrator = Exit.OK, TextNarrator(settings.verbosity)
    with Lock("checkpoint prune"):
        settings.store.refuse_outdated()
        for record in Retention(count, days).expired(settings.store.records()):
            try:
                if not dry_run:
                    with removal_told(narrator.progress):
                        discard(record)
                narrator.wipe()
                if as_json:
                    print_json({"id": record.id, "deleted": not dry_run})
                else:
                    click.echo(record.id)
            except SnapbreakerError as error:  # the others go all the same
                click.echo(f"snapbreaker: {error}", err=True)
                code = Exit.NOT_STARTED
    return code


@checkpoint.command()
@click.argument("id", required=False)
@click.option("--last", is_flag=True, help="The newest checkpoint.")
@click.option("--off", is_flag=True, help="Let it be pruned again.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.pass_obj
def pin(settings: Settings, id: str | None, last: bool, off: bool, as_json: bool) -> None:
    """Keep a checkpoint whatever its age."""
    record = chosen(settings.store, id, last, "unpin" if off else "pin")
    record.pin(not off)
    if as_json:
        print_json({"id": record.id, "pinned": not off})


def _facts(record: Record) -> dict[str, Any]:
    """What a list shows. A damaged record is listed too."""
    facts: dict[str, Any] = {"id": record.id, "state": "damaged", "pinned": False, "title": ""}
    try:
        facts |= {"state": str(record.state), "pinned": record.pinned}
        facts["unfinished"] = record.unfinished()
        meta = record.meta
    except SnapbreakerError as error:
        return facts | {"title": error.message}
    title = " ".join(meta.command) or f"checkpoint of {', '.join(meta.scope)}"
    title += f"  # {meta.note}" if meta.note else ""
    return facts | {"title": title, "created": meta.created, "command": meta.command, "scope": meta.scope}


def _mark(facts: dict[str, Any]) -> str:
    return "P" if facts["pinned"] else "!" if facts.get("unfinished") else " "


def _description(record: Record) -> list[tuple[str, str]]:
    meta, status = record.meta, record.status
    lines = [
        ("id", record.id),
        ("state", str(record.state) + (", pinned" if record.pinned else "")),
        ("created", time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(meta.created))),
        ("command", " ".join(meta.command) or "(made by hand)"),
        ("directory", meta.cwd),
        ("note", meta.note),
    ]
    for volume in meta.volumes:
        size = volume.stored.data.get("bytes", 0) / 1e6
        text = f"{volume.stored.volume.root} by {volume.backend}, {volume.seconds:.2f} s, {size:,.1f} MB"
        lines.append(("volume", text))
    lines += [("left out", f"{left['path']}: {left['why']}") for left in meta.left_out]
    if status.get("issue"):
        lines.append(
            ("issue", f"{status['issue']['type']}: {status['issue']['line'] or status['issue']['reason']}")
        )
    lines.append(("record", str(record.path)))
    return [line for line in lines if line[1]]


def _in_the_way(record: Record) -> tuple[str, bool]:
    """Why a checkpoint should not be removed just so, and whether a living process works on it."""
    try:
        if record.owned():
            return "", True
        unfinished, failed = record.unfinished(), record.state in (State.FAILED, State.REBOOT_PENDING)
    except SnapbreakerError:
        return "damaged", False
    return "pinned" if record.pinned else "unfinished" if unfinished else str(
        record.state
    ) if failed else "", False
