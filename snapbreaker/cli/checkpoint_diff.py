"""`snapbreaker checkpoint diff`"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace

import click

from snapbreaker.checkpoint.record import Record
from snapbreaker.checkpoint.store import ID
from snapbreaker.cli.main import Settings
from snapbreaker.cli.options import change_line, chosen, inside
from snapbreaker.differences import Changed, Compared, compared, goal_of
from snapbreaker.exits import Exit
from snapbreaker.narrator import TextNarrator
from snapbreaker.report.diffstat import Stats
from snapbreaker.report.event_writer import EventWriter
from snapbreaker.report.events import Difference, DirectoryStat
from snapbreaker.report.text import wants_colour
from snapbreaker.report.textdiff import text_diff
from snapbreaker.report.wording import line_text

EXAMPLES = """\b
Examples:
  snapbreaker checkpoint diff --last
  snapbreaker checkpoint diff 42 -p /etc | less
  snapbreaker checkpoint diff 42 --stat /usr /var
"""
COLOURS = {b"+": "green", b"-": "red", b"@": "cyan"}


@click.command(epilog=EXAMPLES)
@click.argument("words", nargs=-1, metavar="[ID] [PATH]...")
@click.option("--last", is_flag=True, help="The newest checkpoint; every argument is a PATH then.")
@click.option("--stat", is_flag=True, help="Only counts and bytes, by directory.")
@click.option("--text", "-p", is_flag=True, help="Also a unified diff of text files that are not large.")
@click.option("--exit-code", is_flag=True, help="Exit 3 when something differs.")
@click.option("--json", "as_json", is_flag=True, help="Events on standard output, one JSON object a line.")
@click.pass_obj
def diff(
    settings: Settings,
    words: tuple[str, ...],
    last: bool,
    stat: bool,
    text: bool,
    exit_code: bool,
    as_json: bool,
) -> int:
    """What files differ between a checkpoint and now: of a committed run, among the paths that it changed.

    A line a path: A (added since), D (deleted), M (changed) or T (became something else), and in what it
    differs; with -v how. What does not begin with an ID is a PATH: only what is at and below it is compared.
    `snapbreaker verify` also compares packages, units, accounts and ports.
    """
    if stat and text:
        raise click.UsageError("give --stat or --text, not both")
    id, paths = _sorted_out(words, last)
    record = chosen(settings.store, id, last, "compare with")
    wanted = tuple(inside(record, path) for path in paths)
    narrator = TextNarrator(-1 if as_json else settings.verbosity)
    goal = goal_of(record)
    found = _Counted(compared(record, replace(goal, paths=wanted or goal.paths), progress=narrator.progress))
    if stat:
        stats = Stats(wanted)
        for one in found:
            stats.add(one.root, one.change)
        narrator.wipe()
        _print_stats(record, stats, as_json)
    elif as_json:
        _print_events(record, found, text)
    else:
        for one in found:
            narrator.wipe()
            _print(one, text, settings.verbosity > 0)
        narrator.wipe()
    return Exit.MANUAL if exit_code and found.count else Exit.OK


class _Counted:
    """Counts what it passes on."""

    def __init__(self, found: Iterable[Compared]) -> None:
        self._found, self.count = found, 0

    def __iter__(self) -> Iterator[Compared]:
        for one in self._found:
            self.count += 1
            yield one


def _sorted_out(words: tuple[str, ...], last: bool) -> tuple[str | None, tuple[str, ...]]:
    """The ID, where there is one, and the paths."""
    if not words or "/" in words[0] or words[0] in (".", ".."):
        return None, words
    if not last:
        return words[0], words[1:]
    if words[0].isdecimal() or ID.fullmatch(words[0]):
        raise click.UsageError(f"give an ID or --last, not both (a file of that name is ./{words[0]})")
    return None, words


def _print(one: Compared, text: bool, verbose: bool) -> None:
    how = one.text() if text or verbose else ""
    click.echo(change_line(Changed.of(one.root, one.change), how))
    if not text:
        return
    coloured, terminal = wants_colour(sys.stdout), sys.stdout.isatty()
    for line in text_diff(one.root, one.change, one.old, one.live):
        if not terminal:
            click.echo(line, nl=False)
            continue
        shown = line_text(line.removesuffix(b"\n").decode("utf-8", "surrogateescape"))
        colour = COLOURS.get(line[:1]) if coloured else None
        click.echo(click.style(shown, fg=colour) if colour else shown)


def _print_stats(record: Record, stats: Stats, as_json: bool) -> None:
    if not as_json:
        for line in stats.lines():
            click.echo(line)
        return
    writer = EventWriter(sys.stdout.fileno(), record.id)
    for each in stats:
        writer.write(DirectoryStat(each.path, each.added, each.changed, each.removed, each.more, each.less))


def _print_events(record: Record, found: Iterable[Compared], text: bool) -> None:
    writer = EventWriter(sys.stdout.fileno(), record.id)
    for one in found:
        changed = Changed.of(one.root, one.change)
        old, new = one.change.old, one.change.new
        lines = b"".join(text_diff(one.root, one.change, one.old, one.live)) if text else None
        writer.write(
            Difference(
                changed.status,
                changed.path,
                list(changed.aspects),
                one.text(),
                None if old is None else old.size,
                None if new is None else new.size,
                None if lines is None else lines.decode("utf-8", "surrogateescape"),
            )
        )
        if isinstance(writer.broken, BrokenPipeError):  # the reader has seen enough
            return
        if writer.broken is not None:
            raise writer.broken
