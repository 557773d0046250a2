"""Finishing what a dead snapbreaker began: kill what is left of the command, roll back, verify, report."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import asdict

from snapbreaker import at_boot
from snapbreaker.checkpoint.discard import discard
from snapbreaker.checkpoint.owner import Owner
from snapbreaker.checkpoint.record import Record
from snapbreaker.checkpoint.states import NEVER_STARTED, SETTLED, State
from snapbreaker.checkpoint.store import Store
from snapbreaker.commit import release
from snapbreaker.conclude import conclude, settled_code
from snapbreaker.errors import CheckpointError, RestoreError, SnapbreakerError
from snapbreaker.exits import Exit
from snapbreaker.goal import Goal
from snapbreaker.issue import Issue, IssueType
from snapbreaker.linux.systemd import SystemdError
from snapbreaker.monitor.process_tree import ProcessTree
from snapbreaker.narrator import Narrator
from snapbreaker.rollback import put_files_back
from snapbreaker.signals import deferred
from snapbreaker.story import Story
from snapbreaker.system import holds

_GOING_ON = {
    State.APPLYING: "it brought to the machine what the command had done in its sandbox",
    State.CHECKING: "the checks ran",
    State.CONFIRMING: "it waited for a confirmation",
}


def recover(store: Store, narrator: Narrator, early: bool = False) -> int:
    """Finish every run whose snapbreaker is gone. The caller holds the lock.

    0 when all are sound afterwards, 5 when another boot has to come first, else 3. ``early``: in an initramfs; see
    ``put_files_back``.
    """
    codes: set[int] = set()
    with deferred():
        if not early:
            try:
                at_boot.carry_over()
            except (OSError, SnapbreakerError) as error:
                narrator.failed(_unsettled(error))
                return Exit.MANUAL
        for record in store.records():
            try:
                if record.unfinished() and early:
                    _early(record, narrator)
                elif record.unfinished():
                    codes.add(recover_record(record, narrator))
                elif not early:
                    _settled(record)
            except (OSError, SnapbreakerError) as error:  # the others are finished all the same
                narrator.failed(_explained(error, record))
                codes.add(Exit.MANUAL)
    return next((code for code in (Exit.MANUAL, Exit.AT_REBOOT) if code in codes), Exit.OK)


def rescue(store: Store, worker: int, narrator: Narrator) -> int:
    """The supervisor's part: the run of the dead process ``worker`` ends here. Returns the run's exit code."""
    with deferred():
        record = next((each for each in reversed(store.records()) if each.is_of(worker)), None)
        if record is None:
            return Exit.INTERNAL
        if record.state in SETTLED - {State.READY}:
            with suppress(SystemdError):  # `recover` tells
                _settled(record)
            return settled_code(record)
        try:
            return recover_record(record, narrator)
        except CheckpointError as error:  # its code would say that the command was never run
            raise RestoreError(error.message, error.hint) from error


def recover_record(record: Record, narrator: Narrator) -> int:
    """Take one unfinished checkpoint to an end. Returns an exit code as `run` would."""
    status = record.status
    state = State(status["state"])
    if state in NEVER_STARTED:
        ProcessTree.clear(record.run_id)
        discard(record)
        return Exit.NOT_STARTED
    survivors: list[str] = []
    tree = ProcessTree.reopen(status["tree"]) if "tree" in status else None
    if tree is not None:
        tree.freeze()
        survivors = [f"process {pid} ({comm}) is still alive" for pid, comm, _ in tree.kill().survivors]
        tree.remove()
    with suppress(OSError):  # a full store: the lock says as well that somebody is at work
        record.adopt([Owner.of(os.getpid())])
    story = _story(record, narrator, status)
    if status.get("at_boot") and not at_boot.withdraw(record):
        # It was cut off, or another root was booted: the files go back one by one.
        record.pass_through(state, at_boot={})
    if state not in (State.RESTORING, State.VERIFYING, State.REBOOT_PENDING):
        if state is not State.TRIPPED:
            record.pass_through(State.TRIPPED, issue=story.issue.as_dict() if story.issue else None)
        narrator.tripped(record, story)
    story.outcome = at_boot.take_back(record, Goal.from_dict(status.get("goal", {})), narrator.progress, survivors)
    return conclude(record, story)


def _early(record: Record, narrator: Narrator) -> None:
    """In an initramfs. What was put back is noted for the report, which is made when all of it is done."""
    status = record.status
    state = State(status["state"])
    if state in NEVER_STARTED:
        return
    if state not in (State.TRIPPED, State.RESTORING, State.VERIFYING):
        issue = _story(record, narrator, status).issue
        record.pass_through(State.TRIPPED, issue=issue.as_dict() if issue else None)
    changes = put_files_back(record, Goal.from_dict(status.get("goal", {})), narrator.progress)
    if changes.total or "early" not in status:
        record.pass_through(State.RESTORING, early=asdict(changes))


def _unsettled(error: OSError | SnapbreakerError) -> SnapbreakerError:
    return RestoreError(
        f"a volume was replaced at boot, and what is kept could not be brought over: {error}",
        "mend the cause, then run `snapbreaker recover`; until then no record is up to date",
    )


def _explained(error: OSError | SnapbreakerError, record: Record) -> SnapbreakerError:
    if isinstance(error, SnapbreakerError):
        return error
    where = f": {os.fsdecode(error.filename)}" if error.filename else ""
    return RestoreError(f"checkpoint {record.id} could not be finished: {error.strerror}{where}", "run it again")


def _story(record: Record, narrator: Narrator, status: dict[str, object]) -> Story:
    story = Story(record, narrator, verb="recover", invocation=("snapbreaker", "recover"))
    story.recall(status)
    if "early" in status:
        story.warnings.append("files were put back before the machine booted")
    elif story.issue is not None and status["state"] != State.REBOOT_PENDING:
        story.warnings.append("snapbreaker itself ended during the rollback; it was finished afterwards")
    elif "goal" not in status or State(str(status["state"])) in _GOING_ON:
        doing = _GOING_ON.get(State(str(status["state"])), "the command ran")
        reason = f"snapbreaker itself was ended while {doing}"
        story.issue = Issue(IssueType.INTERRUPTED, reason, "recover", time=time.time())
    return story


def _settled(record: Record) -> None:
    """What its snapbreaker did not come to after the last state. Idempotent. Raises SystemdError."""
    if record.state is State.COMMITTED:
        _let_go(record)
    if record.state in SETTLED:
        holds.put_back(record.path)


def _let_go(record: Record) -> None:
    """The change stays: the command's processes that still run may go on, and space is given back."""
    described = record.status.get("tree")
    tree = ProcessTree.reopen(described) if described else None
    if tree is not None and tree.cgroup is not None:
        tree.release()
    release(record)
