"""From the sandbox to the machine: the files are applied, then services do what was asked of them."""

from __future__ import annotations

import time

from snapbreaker.checkpoint.record import Record
from snapbreaker.errors import SnapbreakerError
from snapbreaker.issue import Issue, IssueType
from snapbreaker.progress import Progress
from snapbreaker.report.wording import path_text
from snapbreaker.sandbox.apply import Applied, apply
from snapbreaker.sandbox.locks import Locks
from snapbreaker.sandbox.services import HeldBack
from snapbreaker.sandbox.upper import Uppers
from snapbreaker.story import Story

_PARTED = "{} had other names, which still hold what it held: it was changed in place under this one only"
_CROSSED = "{} was made a link of a file in another subvolume, which cannot be: it is a file of its own"


def bring_over(record: Record, uppers: Uppers, locks: Locks, story: Story, progress: Progress) -> Applied | Issue:
    """Nothing may run in the sandbox any more. After an issue what was done already has to go back."""
    try:
        services = HeldBack.of(record)
    except (OSError, SnapbreakerError) as error:
        reason = f"what the command asked of services is not known: {error}"
        return Issue(IssueType.CHECK, reason, "services", time=time.time())
    how = apply(record, uppers, progress)
    if isinstance(how, Issue):
        return how
    story.warnings += [_PARTED.format(path_text(path)) for path in how.parted]
    story.warnings += [_CROSSED.format(path_text(path)) for path in how.crossed]
    locks.let_services_start()
    return services.carry_out(how.has_units, progress) or how
