"""What several verbs have in common."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from snapbreaker.checkpoint.record import Record
from snapbreaker.checkpoint.store import Store
from snapbreaker.errors import SnapbreakerError, UsageError
from snapbreaker.narrator import EventNarrator, Narrator, TextNarrator
from snapbreaker.paths import is_below
from snapbreaker.report.wording import line_text, path_text
from snapbreaker.signals import Interrupted

if TYPE_CHECKING:
    from snapbreaker.differences import Changed


SYSTEM = ("/",)  # the scope of a verb that is given none: the system, not all that is mounted below it


def chosen(store: Store, id: str | None, last: bool, what: str) -> Record:
    """The record that a verb shall work on. On a terminal none means the last, after asking."""
    if id is not None and last:
        raise click.UsageError("give an ID or --last, not both")
    if id is None and not last and sys.stdin.isatty():
        record = store.resolve(None, last=True)
        click.confirm(f"{what} {record.id}?", abort=True, err=True)
        return record
    return store.resolve(id, last)


def here() -> str:
    """The current directory. Raises UsageError when it was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise UsageError("the current directory was removed", "change to another one") from None


def narrator_for(as_json: bool, verbosity: int) -> EventNarrator | TextNarrator:
    return EventNarrator() if as_json else TextNarrator(verbosity)


def told(narrator: Narrator, work: Callable[[], int]) -> int:
    """Run ``work``; its errors are told by ``narrator`` and become exit codes."""
    try:
        return work()
    except Interrupted as stop:
        return 128 + stop.number
    except SnapbreakerError as error:
        narrator.failed(error)
        return error.exit_code


def print_json(value: Any) -> None:
    """One JSON object, one line."""
    click.echo(json.dumps(value))


def write_utf8(content: str) -> None:
    """To standard output, whatever the locale: for formats that say so, or are ASCII."""
    sys.stdout.buffer.write(content.encode("utf-8"))
    sys.stdout.flush()


def print_changes(changes: Iterable[Changed], as_json: bool) -> None:
    """A line a path: status, path, and in what it differs."""
    for change in changes:
        if as_json:
            print_json(asdict(change))
            continue
        click.echo(change_line(change))


def change_line(change: Changed, how: str = "") -> str:
    """Status, path, and in what it differs, or ``how`` where that is known."""
    why = line_text(how) or ", ".join(change.aspects)
    return f"{change.status} {path_text(change.path)}" + (f"  ({why})" if why else "")


def inside(record: Record, path: str) -> str:
    """``path`` made absolute. Raises UsageError when no volume of the record holds it."""
    if not path:
        raise UsageError("the path is empty")
    parent, name = os.path.split(path.rstrip("/") or "/")
    absolute = os.path.realpath(path) if name in ("", ".", "..") else os.path.join(os.path.realpath(parent), name)
    if not any(is_below(absolute, volume.stored.volume.root) for volume in record.meta.volumes):
        raise UsageError(f"{path_text(path)} is not in the scope of checkpoint {record.id}")
    return absolute
