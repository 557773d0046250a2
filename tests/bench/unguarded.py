"""`python -m tests.bench.unguarded ARGUMENT…`: snapbreaker with a guard that is never asked.

ARGUMENTs are snapbreaker's own. Shows what its asking costs. What is changed in place is lost.
"""

from typing import Any

from snapbreaker.cli.main import launch
from snapbreaker.guard import changes, guard


def mark_nothing(*_: Any) -> None:
    """In place of fanotify_mark(2)."""


guard.fanotify_mark = changes.fanotify_mark = mark_nothing  # type: ignore[attr-defined, assignment]
launch()
