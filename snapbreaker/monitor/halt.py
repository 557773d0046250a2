"""What follows a trip: all of the command stands still, is emptied, and dies."""

from __future__ import annotations

import signal
import time

from snapbreaker.monitor.intake import Intake
from snapbreaker.monitor.process_tree import ProcessTree
from snapbreaker.monitor.trip import FREEZE
from snapbreaker.monitor.watched import Watched


def halt(tree: ProcessTree, intake: Intake, watched: Watched, grace: float) -> None:
    """Freeze, take what it wrote, kill, take what it wrote last. ``grace``: seconds that SIGTERM may work."""
    watched.freeze = tree.freeze(FREEZE)
    if watched.reaction_seconds is None and watched.freeze.frozen and watched.read_at is not None:
        watched.reaction_seconds = time.monotonic() - watched.read_at
    intake.drain()
    if grace > 0:
        _wait_for_grace(tree, intake, grace)
        watched.freeze = tree.freeze(FREEZE)
    watched.kill = tree.kill()
    if watched.read_at is not None:
        watched.dead_seconds = time.monotonic() - watched.read_at
    intake.drain()
    intake.end()


def _wait_for_grace(tree: ProcessTree, intake: Intake, grace: float) -> None:
    """SIGTERM to all, and time to obey it."""
    tree.signal(signal.SIGTERM)
    tree.thaw()
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and tree.members():
        time.sleep(0.02)
        intake.drain()
        tree.reap()
