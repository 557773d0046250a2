"""One run, from top to bottom.

Take a checkpoint; run the command and watch it. If nothing trips, check, confirm and commit: the change stays and
can still be undone. At the first issue halt, restore, verify and report.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace

from snapbreaker import lifeboat, selection
from snapbreaker.at_boot import take_back
from snapbreaker.checkpoint import create
from snapbreaker.checkpoint.discard import discard
from snapbreaker.checkpoint.record import Record
from snapbreaker.checkpoint.retention import Retention
from snapbreaker.checkpoint.states import State
from snapbreaker.checkpoint.store import Store
from snapbreaker.commit import Committed, commit
from snapbreaker.conclude import conclude
from snapbreaker.errors import (
    CheckpointError,
    CommandNotExecutable,
    CommandNotFound,
    SnapbreakerError,
    UsageError,
)
from snapbreaker.exits import Exit
from snapbreaker.files.remove import removal_told
from snapbreaker.foreign.watcher import Watcher
from snapbreaker.goal import Goal
from snapbreaker.issue import Issue, IssueType
from snapbreaker.linux import logind, systemd
from snapbreaker.linux.memory import lock_memory
from snapbreaker.monitor import own_issues
from snapbreaker.monitor.hits import add_hits
from snapbreaker.monitor.judge import Judge
from snapbreaker.monitor.monitor import Monitor
from snapbreaker.monitor.process_tree import ProcessTree
from snapbreaker.monitor.programs import programs_running
from snapbreaker.monitor.spawn import resolve_command
from snapbreaker.monitor.watched import RunSpec, Watched
from snapbreaker.narrator import Narrator
from snapbreaker.output_log import OutputLog
from snapbreaker.preflight import preflight
from snapbreaker.request import RunRequest
from snapbreaker.safety import confirmed, health_issue
from snapbreaker.sandbox.bring_over import bring_over
from snapbreaker.sandbox.held_run import held_issue, hold
from snapbreaker.sandbox.sandbox import Sandbox
from snapbreaker.signals import Late, deferred, interruptible, noted
from snapbreaker.sources.lookout import Lookout, Sources
from snapbreaker.space import SpaceWatch
from snapbreaker.story import Story
from snapbreaker.supervisor import HandOver, Lifeline
from snapbreaker.surroundings import Surroundings


def run(request: RunRequest, store: Store, lifeline: Lifeline, narrator: Narrator) -> int:
    """The whole story; returns the exit code. The caller holds the lock and has everything loaded."""
    spec = request.specification()
    resolve_command(spec.argv, spec.env, spec.cwd)
    preflight(store)
    _session()
    around = Surroundings(lifeline)
    with interruptible():
        record = _checkpoint(request, store, around, lifeline, narrator)
    with noted() as late:
        code = _run(request, spec, record, around, lifeline, narrator, late)
    if code == Exit.OK:
        _prune(store, request.retention, narrator)
    return code


def _run(
    request: RunRequest,
    spec: RunSpec,
    record: Record,
    around: Surroundings,
    lifeline: Lifeline,
    narrator: Narrator,
    late: Late,
) -> int:
    """From the checkpoint to the verdict."""
    tree, watcher = around.tree, around.watcher
    story = Story(record, narrator, invocation=request.invocation, observed=request.observe)
    sandbox: Sandbox | None = None
    try:
        with interruptible():
            sandbox = Sandbox.of(record, request.sandbox)
            if sandbox is None and request.hold:
                raise UsageError("--hold needs a sandbox", "--backend overlay")
        watched = _watch(request, spec, around, lifeline, story, sandbox)
    except (CommandNotFound, CommandNotExecutable, CheckpointError, UsageError):  # nothing was run
        around.remove()
        if sandbox is not None:
            sandbox.close()
        with suppress(OSError, SnapbreakerError):  # the first error is the one to tell; `recover` does the rest
            discard(record)
        raise
    try:
        issue, applied = watched.issue or _stopped(late), None
        if sandbox is not None:
            issue = _ended_inside(sandbox, issue, story, tree)
            if issue is None and request.hold:
                return _held(record, sandbox, around, story)
            with deferred():
                how = issue or bring_over(record, sandbox.uppers, sandbox.locks, story, narrator.progress)
            issue, applied = (how, None) if isinstance(how, Issue) else (None, how)
        issue = issue or _checked(request, spec, story) or _stopped(late)
        with deferred():
            ended = issue or commit(record, watcher, narrator.progress, applied)
            if sandbox is not None:
                sandbox.close()  # or package managers would be found locked
            code = _ended(ended, tree, story, watcher)
            add_hits(record.path.parent, watched.hits)
    except SnapbreakerError as error:
        raise HandOver(str(error)) from error  # its exit code may say that nothing was done
    finally:
        if sandbox is not None:
            sandbox.close()
    return code


def _stopped(late: Late) -> Issue | None:
    """A signal that came when the command had ended already."""
    return own_issues.interrupt(late.number) if late.number else None


def _session() -> None:
    """A login session for the run where we are in none: in one, `su -` leaves its processes where they are."""
    if os.geteuid() == 0 and systemd.booted() and not logind.in_session():
        logind.open_session("snapbreaker")


def _checkpoint(
    request: RunRequest, store: Store, around: Surroundings, lifeline: Lifeline, narrator: Narrator
) -> Record:
    wanted = create.Request(
        scope=request.scope,
        keep=request.keep,
        system=request.system,
        foreign=request.foreign,
        backend=request.backend,
        snapshot_size=request.snapshot_size,
        on_disk=bool(request.sandbox.upper),
        command=request.argv,
        cwd=request.cwd or os.getcwd(),
        note=request.note,
        owners=lifeline.owners,
    )
    narrator.starting("run", wanted)
    if lifeboat.needed(os.path.realpath(path) for path in request.scope):
        store.prepare()
        try:
            lifeboat.prepare(store.path)
        except OSError as error:
            raise CheckpointError(
                f"cannot copy what `recover` runs on to {store.path}/lifeboat: {error.strerror}",
                "make space there",
            ) from error
    try:
        record = create.create(store, wanted, narrator.progress, around.prepare, around.guards)
    except BaseException:
        around.remove()
        raise
    narrator.checkpointed(record)
    return record


def _watch(
    request: RunRequest,
    spec: RunSpec,
    around: Surroundings,
    lifeline: Lifeline,
    story: Story,
    sandbox: Sandbox | None,
) -> Watched:
    """Run the command under the monitor. Afterwards, if it tripped, none of its processes is left."""
    record, narrator, tree = story.record, story.narrator, around.tree
    judge = Judge(
        request.rules, strict=request.strict, programs=lambda: programs_running(around.tree.command_lines())
    )
    log = OutputLog(record.path)
    _enter_running(record, tree)
    lock_memory()

    def supervisor_died() -> Issue:
        return Issue(
            IssueType.INTERRUPTED, "snapbreaker's supervisor process died", "supervisor", time=time.time()
        )

    vaults: dict[str, list[str]] = {str(record.path): []}  # the output goes there
    for volume in record.meta.volumes:
        vaults.setdefault(volume.stored.volume.mountpoint, []).append(volume.stored.vault)
    uppers = [sandbox.uppers.any_fd] if sandbox is not None else []
    sources = Sources(
        request.logs, request.rules.logs, request.journal, request.units, sandbox.enter if sandbox else None
    )
    gauges = [
        gauge for volume in record.meta.volumes for gauge in selection.load(volume.backend).gauges(volume.stored)
    ]
    with SpaceWatch(vaults, tree.exclude, uppers, gauges) as space, Lookout(sources, tree.exclude) as lookout:
        watched = Monitor(
            replace(spec, status=narrator.status(record), enter=sandbox.enter if sandbox else None),
            judge,
            tree,
            sinks=[log],
            watch_fds={lifeline.supervisor_fd: supervisor_died, **around.guards.watch_fds(), **space.watch_fds},
            on_started=lambda pid: narrator.running(record, pid),
            relays=narrator.relays(),
            lookout=lookout,
        ).run()
        watched.issue = watched.issue or space.full()
    log.close()
    story.watched = watched
    return watched


def _ended_inside(sandbox: Sandbox, issue: Issue | None, story: Story, tree: ProcessTree) -> Issue | None:
    """The command has ended, and whatever it has left running ends with its sandbox."""
    late = story.ended(tree) if issue is None else None
    story.warnings += [f"{path} was shared: what was asked of whom it belongs to stays" for path in sandbox.shared]
    sandbox.leave()
    return issue or late


def _held(record: Record, sandbox: Sandbox, around: Surroundings, story: Story) -> int:
    try:
        with deferred():
            code = hold(record, sandbox, story)
    except (OSError, SnapbreakerError) as error:
        raise HandOver(f"the change cannot be held: {held_issue(error)}") from error
    around.remove()
    return code


def _enter_running(record: Record, tree: ProcessTree) -> None:
    """Durable before the command starts: whoever finds "running" knows that there may be processes to kill."""
    try:
        record.enter(State.RUNNING, tree=tree.describe())
    except OSError as error:
        raise CheckpointError(f"the run cannot be noted in {record.path}: {error.strerror}") from error


def _checked(request: RunRequest, spec: RunSpec, story: Story) -> Issue | None:
    """Nothing tripped: what do the caller's checks and the caller say?"""
    if not request.checks and request.confirm is None:
        return None
    try:
        story.record.enter(State.CHECKING)
        return health_issue(request.checks, spec) or _unconfirmed(request, story.record, story.narrator)
    except OSError as error:
        reason = f"the run's state could not be recorded in {story.record.path}: {error.strerror}"
        return Issue(IssueType.CHECK, reason, "record", time=time.time())


def _ended(how: Committed | Issue, tree: ProcessTree, story: Story, watcher: Watcher) -> int:
    if isinstance(how, Issue):
        return _halted(how, tree, story, watcher)
    watcher.stop()
    story.committed = how
    tree.release()
    return conclude(story.record, story)


def _halted(issue: Issue, tree: ProcessTree, story: Story, watcher: Watcher) -> int:
    """The breaker is open. What still runs (a late issue: of what the command left running) dies; then put back,
    prove, report.
    """
    record = story.record
    story.issue = issue
    story.halted(tree)
    record.pass_through(State.TRIPPED, issue=issue.as_dict(), **story.facts())
    story.narrator.tripped(record, story)
    goal = Goal.from_dict(record.status.get("goal", {}))
    story.outcome = take_back(record, goal, story.narrator.progress, story.survivors(), watcher)
    watcher.stop()
    return conclude(record, story)


def _unconfirmed(request: RunRequest, record: Record, narrator: Narrator) -> Issue | None:
    if request.confirm is None:
        return None
    record.enter(State.CONFIRMING)
    narrator.confirming(record, request.confirm)
    return confirmed(record, request.confirm)


def _prune(store: Store, retention: Retention, narrator: Narrator) -> None:
    for record in retention.expired(store.records()):
        with (
            removal_told(narrator.progress),
            suppress(OSError, SnapbreakerError),
        ):  # `prune` will say what is in the way
            discard(record)
