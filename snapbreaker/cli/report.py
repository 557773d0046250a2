"""`snapbreaker report`"""

from __future__ import annotations

import sys

import click

from snapbreaker.cli.main import Settings
from snapbreaker.cli.options import chosen, write_utf8
from snapbreaker.errors import UsageError
from snapbreaker.report import text
from snapbreaker.report.model import Report
from snapbreaker.report.render import Format, render
from snapbreaker.report.saved import load_report

EXAMPLES = """\b
Examples:
  snapbreaker report --last
  snapbreaker report 7 --format markdown > report.md
  snapbreaker report --last --json | jq .issue.line
"""


@click.command(epilog=EXAMPLES)
@click.argument("id", required=False)
@click.option("--last", is_flag=True, help="The newest checkpoint.")
@click.option(
    "--format",
    "form",
    type=click.Choice([form.value for form in Format]),
    default=Format.TEXT.value,
    show_default=True,
    help="How to show it.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.pass_obj
def report(settings: Settings, id: str | None, last: bool, form: str, as_json: bool) -> None:
    """Show the report of the run with this checkpoint ID.

    What tripped it and why, what was done about it, and what was compared afterwards. Markdown and HTML also
    hold the rule that would allow the line, ready to paste, and the command to try again.
    """
    if as_json and form not in (Format.TEXT, Format.JSON):
        raise UsageError(f"--json and --format {form} contradict each other")
    found = load_report(chosen(settings.store, id, last, "Show the report of").path)
    if as_json or form != Format.TEXT:
        write_utf8(render_as(found, Format.JSON if as_json else form))
    else:
        click.echo(text.render(found, sys.stdout), nl=False, color=True)


def render_as(report: Report, form: str) -> str:
    """The report in one of the formats ``text``, ``markdown``, ``json`` and ``html``."""
    return render(report, Format(form))
