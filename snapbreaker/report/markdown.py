"""The report as Markdown (CommonMark)."""

from __future__ import annotations

import re

from snapbreaker.report.document import Block, Code, Items, Mono, Paragraph, Words
from snapbreaker.report.model import Report
from snapbreaker.report.story import document

TICKS = re.compile(r"`+")
# What would be markup in running text: an underscore only at the edge of a word, "&" only as an entity.
MARKUP = re.compile(r"[\\`*<>\[\]|~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")


def markdown(report: Report) -> str:
    """The whole report, ending with a newline."""
    story = document(report)
    parts = [f"# {_prose(story.title)}"]
    for section in story.sections:
        parts.append(f"## {section.title}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def fence(text: str, language: str = "") -> str:
    """A code block around ``text``, whatever back-ticks it holds."""
    ticks = "`" * max(3, _longest_run(text) + 1)
    return f"{ticks}{language}\n{text}\n{ticks}"


def code_span(text: str) -> str:
    """``text`` as inline code. CommonMark strips one space of each side, so there is one where it matters."""
    if not text:
        return ""
    ticks = "`" * (_longest_run(text) + 1)
    pad = " " if text[0] in "` " or text[-1] in "` " else ""
    return ticks + pad + text + pad + ticks


def _block(block: Block) -> str:
    if isinstance(block, Paragraph):
        return (f"**{block.label}:** " if block.label else "") + _words(block.words)
    if isinstance(block, Code):
        return fence(block.text, block.language)
    assert isinstance(block, Items)
    return "\n".join("- " + _words(row) for row in block.rows)


def _words(words: Words) -> str:
    return "".join(code_span(word.text) if isinstance(word, Mono) else _prose(word) for word in words)


def _prose(text: str) -> str:
    return MARKUP.sub(r"\\\g<0>", text)


def _longest_run(text: str) -> int:
    return max((len(run) for run in TICKS.findall(text)), default=0)
