"""Making the live tree what it was: plan, stage, swap, finish.

Until the swap nothing live is changed. In the swap every path changes by one rename(2), and what was there lies in
a slot afterwards. Whatever ends the work, another attempt with a new comparison takes it to the end.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from snapbreaker.dataclass import dataclass
from snapbreaker.errors import RestoreError
from snapbreaker.files import changeset, ops
from snapbreaker.files.changeset import ABSENT, Kind, Record, fingerprint
from snapbreaker.files.entry import Aspect, Change, Entry
from snapbreaker.files.finish import Finish
from snapbreaker.files.live import LiveTree
from snapbreaker.files.locks import Locks
from snapbreaker.files.plan import Action, Plan, Step, make_plan
from snapbreaker.files.room import Room
from snapbreaker.files.stage import Stage
from snapbreaker.files.staging import Staging
from snapbreaker.files.swap import Swap
from snapbreaker.files.tree import Tree
from snapbreaker.progress import Progress, silent

PLAN = b"plan"


@dataclass(frozen=True, slots=True)
class Failure:
    """A path that is not what it was, and why."""

    path: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did. ``failures`` is empty when every change was undone.

    ``placed`` paths came back (``linked`` of them as a further link), ``displaced`` went into slots, of
    ``settled`` the metadata was put right in place; ``octets`` are the sizes of the files that came back.
    ``deleted`` files that the run had added are gone for want of space. ``stage`` is the directory that keeps
    what was displaced.
    """

    stage: str
    placed: int
    linked: int
    displaced: int
    settled: int
    octets: int
    deleted: tuple[bytes, ...]
    failures: tuple[Failure, ...]


def restore(
    old: Tree,
    live: LiveTree,
    changes: Iterable[Change],
    stage: Stage,
    progress: Progress = silent,
    *,
    make_room: bool = False,
    last_look: Callable[[], None] | None = None,
) -> Restored:
    """Make each path of ``changes``, a fresh comparison of ``live`` with ``old``, what it is in ``old``.

    With ``make_room`` files that the run added are deleted, largest first, where the filesystem is too full to
    stage what must come back. With ``last_look`` nothing is done unless everything could be staged; it is called
    then, and may refuse by a RestoreError. Closes ``stage``. System calls only.

    Raises RestoreError when nothing could be done, in which case nothing was changed (files deleted by
    ``make_room`` apart). A path that fails is listed in the result, and the others go on.
    """
    changes = list(changes)
    room = Room(live, stage.vault, changes if make_room else ())
    plan = make_plan(old, live, changes, live.held())
    try:
        room.make(stage.open)
        stage.clean(live.root_fd)
        return _restore(old, live, stage, plan, room, progress, last_look)
    except OSError as error:
        what = os.fsdecode(error.filename) if error.filename else "a system call"
        raise RestoreError(
            f"cannot restore into {stage.path}: {what}: {error.strerror}",
            "make space on that filesystem and roll back again" if error.errno == errno.ENOSPC else "",
        ) from error
    finally:
        stage.close()
        live.forget()


def _restore(
    old: Tree,
    live: LiveTree,
    stage: Stage,
    plan: Plan,
    room: Room,
    progress: Progress,
    last_look: Callable[[], None] | None,
) -> Restored:
    locks = Locks(live, stage)
    staging = Staging(old, live, stage, plan, locks, room)
    try:
        staging.run(progress)
        room.make(changeset.write, stage.fd, PLAN, list(_inverse(plan, _around(plan, staging.parents, live), old)))
        if last_look is not None:
            _refuse_unless_whole(plan)
            last_look()
        room.make(stage.note_staged, staging.staged())
    except (OSError, RestoreError):
        staging.give_up()
        raise
    swap = Swap(live, stage, plan, locks)
    swap.run(progress)
    Finish(old, live, plan, locks).run([*swap.touched, *staging.tops], swap.projects, progress)
    try:
        ops.syncfs(stage.fd)
    except OSError as error:
        plan.failures[b""] = f"what was restored may not be on disk: {error.strerror}"
    with suppress(OSError):  # what this leaves behind goes with the next attempt
        stage.seal()
    return _result(stage, plan, staging, room)


def _refuse_unless_whole(plan: Plan) -> None:
    failures = {**plan.failures, **{step.path: step.failure for step in plan.steps if step.failure}}
    for path, text in failures.items():
        raise RestoreError(f"{os.fsdecode(path)} {text}")


def _result(stage: Stage, plan: Plan, staging: Staging, room: Room) -> Restored:
    failures = [Failure(path, text) for path, text in plan.failures.items()]
    failures += [Failure(step.path, step.failure) for step in plan.steps if step.failure]
    done = [step for step in plan.steps if not step.failure]
    linked = sum(step.action is Action.LINK for step in done)
    return Restored(
        stage.path,
        placed=linked + sum(step.action is Action.PLACE for step in done),
        linked=linked,
        displaced=sum(step.change.new is not None and step.action is not Action.METADATA for step in done),
        settled=sum(step.action is Action.METADATA for step in done),
        octets=staging.octets,
        deleted=tuple(room.deleted),
        failures=tuple(failures),
    )


def _around(plan: Plan, parents: dict[bytes, Entry], live: LiveTree) -> dict[bytes, Entry]:
    """``parents``, and the directories of files that only stop being, or become, a link of another one: who undoes
    this may have to make them anew.
    """
    found = dict(parents)
    for step in plan.steps:
        above = step.path.rpartition(b"/")[0]
        if step.action is Action.METADATA and step.change.aspects & Aspect.LINKS and above not in found:
            entry = live.lookup(above)
            if entry is not None:
                found[above] = entry
    return found


def _inverse(plan: Plan, parents: dict[bytes, Entry], old: Tree) -> Iterator[Record]:
    """What each path is before the swap, and where it will lie after it."""
    for step in plan.steps:
        if not step.failure:
            yield _record(step)
        if not step.failure and step.snapshot:
            yield from _along(step, plan, old)
    for path, entry in parents.items():
        if path not in plan.by_path:
            yield Record(path, Kind.CONTEXT, Aspect.NONE, entry)


def _along(step: Step, plan: Plan, old: Tree) -> Iterator[Record]:
    """The paths that come along with a subvolume's snapshot."""
    for entry in old.walk(step.path):
        if entry.path not in plan.by_path:
            after = fingerprint(entry, old.details(entry))
            yield Record(entry.path, Kind.ABSENT, Aspect.ADDED, after=after)


def _record(step: Step) -> Record:
    change, new = step.change, step.change.new
    after = fingerprint(change.old, step.details) if change.old is not None else ABSENT
    if step.action is Action.METADATA:
        return Record(change.path, Kind.METADATA, change.aspects, new, step.was, after=after)
    if new is None:
        return Record(change.path, Kind.ABSENT, Aspect.ADDED, after=after)
    aspects = change.aspects if change.old is not None else Aspect.REMOVED
    return Record(change.path, Kind.DISPLACED, aspects, new, domain=step.domain, slot=step.number, after=after)
