"""The report as one self-contained HTML page: no script, nothing loaded from anywhere."""

from __future__ import annotations

from html import escape

from snapbreaker.report.document import Block, Code, Items, Mono, Paragraph, Words
from snapbreaker.report.model import CheckpointStatus, Report
from snapbreaker.report.story import document

STYLE = """
:root { color-scheme: light dark; --mark: #c62828; --good: #2e7d32; --box: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #8886; }
pre, code { font-family: ui-monospace, monospace; font-size: .9em; background: var(--box); border-radius: 4px; }
pre { padding: .6rem .8rem; overflow-x: auto; }
code { padding: .1em .3em; overflow-wrap: anywhere; }
pre b, .bad { color: var(--mark); }
.good { color: var(--good); }
.status { font-weight: bold; }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def html(report: Report) -> str:
    """The whole page, ending with a newline."""
    story = document(report)
    body = [f"<h1>{escape(story.title)}</h1>", _status(report.checkpoint_status)]
    for section in story.sections:
        body.append(f"<h2>{escape(section.title)}</h2>")
        body += [_block(block) for block in section.blocks]
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(story.title)}</title><style>{STYLE}</style>"
    )
    lines = "\n".join(body)
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>\n{lines}\n</body>\n</html>\n'


def _status(status: CheckpointStatus) -> str:
    kind = {CheckpointStatus.COMPLETED: "good", CheckpointStatus.FAILED: "bad"}.get(status, "")
    return f'<p class="status {kind}">{escape(status)}</p>'


def _block(block: Block) -> str:
    if isinstance(block, Paragraph):
        label = f"<strong>{escape(block.label)}:</strong> " if block.label else ""
        return f"<p>{label}{_words(block.words)}</p>"
    if isinstance(block, Code):
        return _code(block)
    assert isinstance(block, Items)
    return "<ul>\n" + "\n".join(f"<li>{_words(row)}</li>" for row in block.rows) + "\n</ul>"


def _code(block: Code) -> str:
    lines = [escape(line) for line in block.text.split("\n")]
    if 0 <= block.marked < len(lines):
        lines[block.marked] = f"<b>{lines[block.marked]}</b>"
    return "<pre>" + "\n".join(lines) + "</pre>"


def _words(words: Words) -> str:
    return "".join(f"<code>{escape(w.text)}</code>" if isinstance(w, Mono) else escape(w) for w in words)
