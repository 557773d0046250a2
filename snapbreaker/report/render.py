"""A report in the format that was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum

from snapbreaker.report.html import html
from snapbreaker.report.markdown import markdown
from snapbreaker.report.model import Report
from snapbreaker.report.text import text


class Format(StrEnum):
    TEXT = "text"
    MARKDOWN = "markdown"
    JSON = "json"
    HTML = "html"


def as_json(report: Report) -> str:
    """As it lies in the record; ASCII, so that bytes that are not UTF-8 survive (``snapbreaker.report.model``)."""
    return json.dumps(report.as_dict(), indent=1) + "\n"


RENDERERS: dict[Format, Callable[[Report], str]] = {
    Format.TEXT: text,
    Format.MARKDOWN: markdown,
    Format.JSON: as_json,
    Format.HTML: html,
}


def render(report: Report, form: Format) -> str:
    """The whole report: a string that UTF-8 can encode, ending with a newline."""
    return RENDERERS[form](report)
