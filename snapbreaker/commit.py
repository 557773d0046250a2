"""Making a successful run's change stay: what it replaced becomes the undo set, the rest is let go."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from snapbreaker import selection
from snapbreaker.backend import Backend, Stored
from snapbreaker.bystanders import Bystanders
from snapbreaker.checkpoint import vault
from snapbreaker.checkpoint.record import Record
from snapbreaker.checkpoint.states import State
from snapbreaker.collector import uncollected
from snapbreaker.errors import SnapbreakerError
from snapbreaker.files import ops
from snapbreaker.files.entry import Change
from snapbreaker.files.undo import build_undo
from snapbreaker.foreign.watcher import Watcher
from snapbreaker.goal import Goal
from snapbreaker.guard.guard import end as end_guard
from snapbreaker.issue import Issue, IssueType
from snapbreaker.linux.systemd import SystemdError
from snapbreaker.progress import Progress, silent
from snapbreaker.report.model import Changes
from snapbreaker.sandbox.apply import Applied, catch_up
from snapbreaker.system import holds
from snapbreaker.system.parts import Parts
from snapbreaker.system.state import AFTER, SystemState, capture
from snapbreaker.trees import live_tree, pending, source

_TOLD_EVERY = 256  # paths


class Committed:
    """What came out of a commit: what the run changed, and what the undo set takes."""

    def __init__(self) -> None:
        self.changes = Changes()
        self.octets = 0
        self.foreign: list[tuple[str, str]] = []  # what others changed meanwhile: (path, text)
        self.started = time.time()
        self.seconds = 0.0  # for the files
        self.system_seconds = 0.0  # for packages, units, accounts and ports


@uncollected
def commit(
    record: Record,
    watcher: Watcher | None = None,
    progress: Progress = silent,
    applied: Applied | None = None,
) -> Committed | Issue:
    """Write the undo set of every volume, then say *committed*. What was ``applied`` from a sandbox has one.

    An undo set that cannot be written (no space) is an issue: a change that cannot be undone does not stay. Nor
    does one that may have left systemd unable to answer.
    """
    done = Committed()
    bystanders = Bystanders(record, False, watcher)
    record.unreserve()  # the command may have filled the store; what is written from here on is small
    try:
        with suppress(SystemdError):  # `conclude` tries again, and tells
            holds.put_back(record.path)
        if applied is not None:
            done.changes, done.octets = applied.changes, applied.octets
            catch_up(record)
        for volume in record.meta.volumes if applied is None else ():
            with source(volume, undo=False) as old, live_tree(volume) as live:
                # What others wrote is not the run's: a later rollback of it must not take that away.
                changes = pending(volume, old, live, Goal(), progress)
                split = bystanders.split(volume, old, live, changes, keep=True)
                done.changes.add(volume.stored.volume.root, split.back)
                done.foreign += bystanders.told(volume.stored.volume.root, split, committed=True)
                changes = _counted(split.back, progress)
                undo = build_undo(old, live, changes, volume.stored.vault, volume.stored.record)
                done.octets += undo.octets
                undo.close()
        if record.meta.parts:
            began = time.monotonic()
            try:
                after = _captured(Parts(**record.meta.parts))
            except (OSError, SnapbreakerError) as error:
                reason = f"what the run made of packages and units could not be recorded: {error}"
                return Issue(IssueType.CHECK, reason, "commit", time=time.time())
            after.save(record.path / AFTER)
            done.system_seconds = time.monotonic() - began
        for volume in record.meta.volumes:  # what is said to stay does so through a power cut
            _on_disk(volume.stored.volume.root)
        record.enter(State.COMMITTED)
    except (OSError, SnapbreakerError) as error:
        if record.state is not State.COMMITTED:
            reason = f"the change and its undo set could not be written: {error}"
            return Issue(IssueType.CHECK, reason, "commit", time=time.time())
    release(record)
    done.seconds = time.time() - done.started - done.system_seconds
    return done


def _on_disk(root: str) -> None:
    fd = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        ops.syncfs(fd)
    finally:
        os.close(fd)


def _counted(changes: Sequence[Change], progress: Progress) -> Iterator[Change]:
    octets = 0
    for count, change in enumerate(changes):
        if count % _TOLD_EVERY == 0:
            progress("save", count, octets)
        yield change
        octets += change.old.size if change.old is not None and change.old.is_file else 0


def _captured(parts: Parts) -> SystemState:
    """The state after the run. systemd may just be executed anew: it is asked once more, by a new connection."""
    try:
        return capture(parts)
    except SystemdError:
        return capture(parts)


def release(record: Record) -> None:
    """Let go of what only a rollback of the whole checkpoint would have needed. Idempotent."""
    for volume in record.meta.volumes:
        vault.unreserve(volume.stored.vault)
        end_guard(volume.stored.vault)
        with suppress(OSError):  # space is freed later, by prune; the undo set is what counts
            selection.load(volume.backend).release(volume.stored)


def let_go(record: Record) -> None:
    """Of a halted run nothing can be undone any more: what it was rolled back from makes room for the next one."""
    with suppress(OSError, SnapbreakerError):  # a damaged one is for a person to judge
        marker = record.path / "released"
        halted = record.state is State.ROLLED_BACK and not Goal.from_dict(record.status.get("goal", {})).undo
        if halted and not record.pinned and not marker.exists():
            release(record)
            marker.touch(mode=0o600)


def _should_go(backend: Backend, stored: Stored) -> bool:
    return backend.keeps_links(stored) or backend.lingers(stored)


def let_links_go(record: Record) -> None:
    """The same at once, where files of the machine would else go on having a further link in a vault."""
    with suppress(OSError, SnapbreakerError):
        if any(_should_go(selection.load(volume.backend), volume.stored) for volume in record.meta.volumes):
            let_go(record)
