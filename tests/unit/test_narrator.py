"""What a person is told while it happens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from snapbreaker.issue import Issue, IssueType
from snapbreaker.narrator import TextNarrator


@pytest.mark.parametrize("text", ["ERROR \x1b[2J here", "ERROR \u009b2J here", "ERROR \u202e here"])
def test_the_line_that_tripped_does_not_draw(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A log tells what strangers send, and C1 controls are left in a line that is judged."""
    issue = Issue(IssueType.ERROR, f"because of {text}", "unit\x9b", text, "/var/log/web.log", 3)
    story: Any = SimpleNamespace(issue=issue, halt=lambda: None)
    TextNarrator().tripped(story, story)
    shown = capfd.readouterr().err
    assert "TRIPPED by ERROR: ERROR \\" in shown
    assert shown.replace("\n", "").isprintable()
