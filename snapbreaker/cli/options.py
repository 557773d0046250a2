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
from snapbreaker.report.wording import path_text
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


def narrator_for(as_json: bool, verbosity: int) -> Narrator:
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


def print_changes(changes: Iterable[Changed], as_json: bool) -> None:
    """A line a path: sign, path, and in what it differs."""
    for change in changes:
        if as_json:
            print_json(asdict(change))
            continue
        why = f"  ({', '.join(change.aspects)})" if change.aspects else ""
        click.echo(f"{change.sign} {path_text(change.path)}{why}")
