"""What is known so far of one run, rollback or recovery, and the report that it makes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, field
from typing import Any

from snapbreaker.checkpoint.record import Meta, Record
from snapbreaker.checkpoint.states import State
from snapbreaker.commit import Committed
from snapbreaker.dataclass import dataclass
from snapbreaker.doing import Doing
from snapbreaker.files.policy import PathClass
from snapbreaker.issue import Issue, IssueType
from snapbreaker.linux import systemd
from snapbreaker.monitor.process_tree import ProcessTree
from snapbreaker.monitor.watched import Watched
from snapbreaker.narrator import Narrator
from snapbreaker.outcome import Outcome
from snapbreaker.report import model
from snapbreaker.report.model import (
    Changes,
    Comparison,
    Halt,
    Line,
    PathAspects,
    PathNote,
    Phase,
    Process,
    Report,
    VolumeReport,
)
from snapbreaker.system.rollback import SystemOutcome

ENDS = {
    State.COMMITTED: model.Outcome.COMMITTED,
    State.HELD: model.Outcome.HELD,
    State.ROLLED_BACK: model.Outcome.ROLLED_BACK,
    State.READY: model.Outcome.ROLLED_BACK,
    State.REBOOT_PENDING: model.Outcome.REBOOT_PENDING,
}


@dataclass(slots=True)
class Story:
    """What is known so far of one run; grows as it goes on."""

    record: Record
    narrator: Narrator
    verb: str = "run"
    invocation: Sequence[str] = ("snapbreaker", "run")
    observed: bool = False
    issue: Issue | None = None
    watched: Watched | None = None
    committed: Committed | None = None
    outcome: Outcome | None = None
    earlier: dict[str, Any] = field(default_factory=dict)  # facts of a run that somebody else has to finish
    before_boot: Changes = field(default_factory=Changes)  # what the initramfs has put back
    waiting: Changes = field(default_factory=Changes)  # what is held in a sandbox
    warnings: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.time)

    def survivors(self) -> list[str]:
        """What speaks against a rollback from the start: processes that could not be killed may go on writing."""
        halt = self.halt()
        return [f"process {each.pid} ({each.comm}) is still alive" for each in halt.survivors] if halt else []

    def halted(self, tree: ProcessTree) -> None:
        """Make sure that nothing of ``tree`` runs any more; the monitor has done so already unless it is late."""
        if self.watched is not None and self.watched.kill is None:
            self.watched.freeze = tree.freeze()
            self.watched.kill = tree.kill()
        tree.remove()

    def ended(self, tree: ProcessTree) -> Issue | None:
        """What a command in a sandbox has left running ends with it, and is named. An issue if it does not end."""
        kill = tree.kill()
        if self.watched is None:
            return None
        if self.watched.left:
            names = ", ".join(f"{comm} ({pid})" for pid, comm in self.watched.left)
            self.warnings.append(f"ended with its sandbox: {names}")
            self.watched.left = []
        if not kill.survivors:
            return None
        pid, comm, _ = kill.survivors[0]
        return Issue(IssueType.CHECK, f"process {pid} ({comm}) cannot be ended", "sandbox", time=time.time())

    def facts(self) -> dict[str, Any]:
        """What the state file keeps of a trip, so that whoever finishes the rollback can report it."""
        before, after = self._context()
        return {
            "story": {
                "before": [asdict(line) for line in before],
                "after": [asdict(line) for line in after],
                "halt": asdict(halt) if (halt := self.halt()) else None,
                "doing": [asdict(one) for one in self.doing()],
                "started": self.watched.started if self.watched else self.started,
                "ended": self.watched.ended if self.watched else time.time(),
            }
        }

    def recall(self, status: dict[str, Any]) -> None:
        """Take from the state file what an earlier part of the story noted there."""
        issue, earlier = status.get("issue"), status.get("story")
        self.issue = Issue.from_dict(issue) if isinstance(issue, dict) else None
        self.earlier = earlier if isinstance(earlier, dict) else {}
        if isinstance(early := status.get("early"), dict):
            sample = [PathAspects(**each) for each in early["sample"]]
            self.before_boot = Changes(**{**early, "sample": sample})

    def report(self, exit_code: int) -> Report:
        """The whole story as the one model that every renderer reads."""
        meta, state = self.record.meta, self.record.state
        before, after = self._context()
        report = Report(
            id=self.record.id,
            command=list(meta.command),
            outcome=self._outcome(state),
            exit_code=exit_code,
            verb=self.verb,
            invocation=list(self.invocation),
            note=meta.note,
            cwd=meta.cwd,
            host=meta.host,
            user=_user(),
            started=meta.created if self.verb == "run" else self.started,
            ended=time.time(),
            issue=self.issue,
            before=before,
            after=after,
            volumes=[_volume(volume) for volume in meta.volumes],
            timeline=self._timeline(),
            halt=self.halt(),
            doing=self.doing(),
            changes=self._changes(),
            kept=_kept(meta),
            left_out=[PathNote(left["path"], left["why"]) for left in meta.left_out],
            record=str(self.record.path),
            warnings=[*self.warnings, *_not_followed(meta)],
        )
        if self.watched is not None:
            report.status, report.signal = self.watched.status, self.watched.signal or 0
            report.lines = dict(self.watched.lines)
            report.issues, report.found = list(self.watched.issues), dict(self.watched.found)
            report.warnings += self.watched.warnings
        if self.committed is not None:
            report.foreign = [PathNote(*each) for each in self.committed.foreign]
        if self.outcome is not None:
            _tell_rollback(report, self.outcome)
        return report

    def _outcome(self, state: State) -> model.Outcome:
        if self.outcome is None and self.observed and state is State.COMMITTED:
            return model.Outcome.OBSERVED
        if self.outcome is not None and not self.outcome.verified:
            return model.Outcome.FAILED
        if self.outcome is not None and state is State.COMMITTED:
            return model.Outcome.ROLLED_BACK  # a part of the run was undone
        return ENDS.get(state, model.Outcome.FAILED)

    def _context(self) -> tuple[list[Line], list[Line]]:
        if self.watched is not None:
            return [Line.of(line) for line in self.watched.before], [Line.of(line) for line in self.watched.after]
        return (
            [Line(**line) for line in self.earlier.get("before", [])],
            [Line(**line) for line in self.earlier.get("after", [])],
        )

    def doing(self) -> list[Doing]:
        """What its processes were at when it was halted for silence, or for time."""
        if self.watched is not None:
            return self.watched.doing
        return [Doing(**one) for one in self.earlier.get("doing", [])]

    def halt(self) -> Halt | None:
        if self.watched is None or self.watched.kill is None:
            if not (data := self.earlier.get("halt")):
                return None
            return Halt(**{**data, "survivors": [Process(**each) for each in data.get("survivors", [])]})
        kill, freeze = self.watched.kill, self.watched.freeze
        return Halt(
            reaction=self.watched.reaction_seconds or 0.0,
            frozen=freeze.frozen if freeze else False,
            killed=kill.killed,
            seconds=kill.seconds,
            survivors=[Process(*each) for each in kill.survivors],
        )

    def _changes(self) -> Changes | None:
        if self.committed is not None:
            return self.committed.changes
        if self.outcome is None:
            return self.waiting if self.record.state is State.HELD else None
        whole = Changes()
        for changes in [self.before_boot, *(volume.changes for volume in self.outcome.volumes)]:
            whole.join(changes)
        return whole

    def _timeline(self) -> list[Phase]:
        meta, phases = self.record.meta, []
        if self.verb == "run":
            names = ", ".join(sorted({volume.backend for volume in meta.volumes}))
            took = sum(volume.seconds for volume in meta.volumes)
            phases.append(Phase("checkpoint", meta.created, took, f"{len(meta.volumes)} volume(s) by {names}"))
        if self.watched is not None:
            watched = self.watched
            phases.append(Phase("run", watched.started, watched.ended - watched.started))
            if halt := self.halt():
                phases.append(Phase("halt", watched.ended, halt.seconds, f"{halt.killed} processes killed"))
        if self.committed is not None:
            done = self.committed
            phases.append(Phase("commit", done.started, done.seconds, f"undo set of {done.changes.total} paths"))
            if done.system_seconds:
                ended = done.started + done.seconds
                phases.append(Phase("record", ended, done.system_seconds, _parts(meta.parts.get("kernel", False))))
        if self.outcome is not None:
            back = self.outcome
            verifying = sum(volume.verify_seconds for volume in back.volumes)
            phases.append(Phase("restore", back.started, back.restore_seconds, _put_back(back)))
            verified = back.started + back.restore_seconds
            whole = all(volume.compared for volume in back.volumes)
            compared = "everything compared again" if whole else "not everything could be compared"
            if self.record.state is State.REBOOT_PENDING:
                compared = "everything will be compared after the boot"
            elif all(volume.untouched for volume in back.volumes):
                compared = "what the command did was in its sandbox only"
            phases.append(Phase("verify", verified, verifying, compared))
            phases += _system_phases(back.system, verified + verifying)
        return phases


def _put_back(outcome: Outcome) -> str:
    paths = sum(volume.changes.total for volume in outcome.volumes)
    if not all(volume.compared for volume in outcome.volumes):
        return f"{paths} paths to put back, which was not finished"
    failed = sum(len({path for path, _ in volume.failures}) for volume in outcome.volumes)
    return f"{paths - failed} of {paths} paths put back" if failed else f"{paths} paths put back"


def _tell_rollback(report: Report, outcome: Outcome) -> None:
    for volume in outcome.volumes:
        if volume.compared:
            why = " (none was touched: it was in a sandbox)" if volume.untouched else ""
            report.compared.append(Comparison(f"files below {volume.root}{why}", 0, volume.verify_seconds))
        report.differences += [
            PathNote(model.absolute(volume.root, found.path), found.text) for found in volume.differences
        ]
        report.failures += [PathNote(model.absolute(volume.root, path), why) for path, why in volume.failures]
        report.foreign += [PathNote(*each) for each in volume.foreign]
    report.failures += [PathNote("", text) for text in outcome.errors]
    _tell_system(report, outcome.system)
    report.differences += [PathNote(point, "was mounted, is no longer") for point in outcome.missing_mounts]
    report.warnings += [f"unmounted {point}, which the command had mounted" for point in outcome.unmounted]
    report.warnings += outcome.notes
    for volume in outcome.volumes:
        report.warnings += [
            f"deleted to make room: {model.absolute(volume.root, path)}, which the command had added"
            for path in volume.deleted
        ]
    report.displaced = next((path for volume in outcome.volumes for path in volume.displaced), "")


def _tell_system(report: Report, system: SystemOutcome) -> None:
    report.compared += [Comparison(what, count) for what, count in system.compared]
    report.differences += [PathNote(*each) for each in system.differences]
    report.failures += [PathNote("", text) for text in system.errors]
    report.warnings += system.notes
    report.units += [PathNote(name, "stopped") for name in system.stopped]
    report.units += [PathNote(name, "started") for name in system.started]
    report.units += [PathNote(name, f"restarted: {why}") for name, why in system.restarted.items()]
    report.kernel += [PathNote(*each) for each in system.kernel.items()]


def _system_phases(system: SystemOutcome, started: float) -> list[Phase]:
    if not (system.compared or system.errors):
        return []
    proved = started + system.reconcile_seconds
    kernel = any(what == "kernel state" for what, _ in system.compared)
    return [
        Phase("reconcile", started, system.reconcile_seconds, _reconciled(system)),
        Phase("prove", proved, system.verify_seconds, f"{_parts(kernel)} compared"),
    ]


def _parts(kernel: bool) -> str:
    return "packages, units, accounts, ports and kernel state" if kernel else "packages, units, accounts and ports"


def _reconciled(system: SystemOutcome) -> str:
    """``2 units stopped, 1 started, 1 restarted``."""
    counts = {"stopped": system.stopped, "started": system.started, "restarted": system.restarted}
    words = [f"{len(names)} {what}" for what, names in counts.items() if names]
    units = "units: " + ", ".join(words) if words else "no unit had to be changed"
    return f"{units}; kernel: {len(system.kernel)} put back" if system.kernel else units


def _not_followed(meta: Meta) -> list[str]:
    """What the scope holds and nobody here can be asked about."""
    if meta.parts.get("packages") and not meta.parts.get("services") and not systemd.booted():
        return ["systemd is not PID 1 here: services were not followed"]
    return []


def _kept(meta: Meta) -> list[str]:
    """What was neither recorded nor touched, wherever there is any such thing; then where only growth was kept."""
    found: dict[PathClass, list[str]] = {PathClass.KEEP: [], PathClass.KEEP_CONTENT: []}
    for volume in meta.volumes:
        for path, path_class in volume.stored.policy.classes:
            if os.path.lexists(name := model.absolute(volume.stored.volume.root, path)):
                found[path_class].append(name)
    return [
        *found[PathClass.KEEP],
        *(f"{name} (what was written there)" for name in found[PathClass.KEEP_CONTENT]),
    ]


def _volume(volume: Any) -> VolumeReport:
    data = volume.stored.data
    return VolumeReport(
        volume.stored.volume.root, volume.backend, volume.seconds, data.get("bytes", 0), data.get("frozen", 0.0)
    )


def _user() -> str:
    """Who asked. Not by getpwuid(3), which may load libraries from the scope."""
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or str(os.getuid())
