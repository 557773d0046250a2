"""When everything was back, as snapbreaker's events tell it (docs/events.md): what comes after is the proof."""

from __future__ import annotations

import json
from collections.abc import Iterable


def seconds_until_back(events: Iterable[bytes], started: float) -> float:
    """Since ``started`` (seconds since the epoch): the end, less the last comparison. Reads all events."""
    verifying = finished = 0.0
    for line in events:
        event = json.loads(line)
        if event["event"] == "verified":
            verifying = event["seconds"]
        elif event["event"] == "finished":
            finished = event["time"]
    return finished - verifying - started
