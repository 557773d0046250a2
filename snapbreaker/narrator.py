"""Who tells what happens while it happens: to a person on standard error, or to a program as events."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from snapbreaker import progress
from snapbreaker.errors import Conflict, SnapbreakerError
from snapbreaker.monitor.relays import Relays
from snapbreaker.monitor.streams import Relay
from snapbreaker.output_log import STREAMS
from snapbreaker.report import events
from snapbreaker.report.event_writer import EventWriter
from snapbreaker.report.model import Outcome, Report
from snapbreaker.report.wording import count_text, line_text, path_text, size_text
from snapbreaker.voice import Voice

if TYPE_CHECKING:
    from snapbreaker.checkpoint.create import Request
    from snapbreaker.checkpoint.record import Record
    from snapbreaker.story import Story


_PATIENCE = 86400.0  # s that who looks on may look away
_PAUSE = 1.0  # seconds without progress after which it is another piece of work


class Narrator(Protocol):
    """Called at each turn of the story. Must not raise."""

    def hint(self, text: str) -> None: ...
    def starting(self, verb: str, request: Request) -> None: ...
    def progress(self, phase: str, entries: int, octets: int = 0) -> None: ...
    def checkpointed(self, record: Record) -> None: ...
    def running(self, record: Record, pid: int) -> None: ...
    def status(self, record: Record) -> str: ...
    def relays(self) -> Mapping[str, Relay] | None: ...
    def confirming(self, record: Record, seconds: float) -> None: ...
    def tripped(self, record: Record, story: Story) -> None: ...
    def finished(self, report: Report) -> None: ...
    def failed(self, error: SnapbreakerError) -> None: ...


class TextNarrator:
    """Calm lines on standard error, each begun with the program's name; progress only on a terminal."""

    def __init__(self, verbosity: int = 0) -> None:
        self.verbosity = verbosity
        self._voice = Voice(sys.stderr)
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._shown = self._heard = 0.0
        self._began = self._work_began = time.monotonic()
        self._phase, self._entries, self._octets = "copy", 0, 0
        if self._terminal and verbosity >= 0:
            progress.hear = self._moved

    def say(self, text: str) -> None:
        self.wipe()
        self._write(f"snapbreaker: {text}\n")

    def hint(self, text: str) -> None:
        if self.verbosity >= 0:
            self.say(f"hint: {text}")

    def starting(self, verb: str, request: Request) -> None:
        self._began = self._work_began = self._heard = time.monotonic()

    def progress(self, phase: str, entries: int, octets: int = 0) -> None:
        """A line that is written over, once work has taken a second, at most five times a second."""
        if not self._terminal or self.verbosity < 0:
            return
        now = time.monotonic()
        if not self._heard or (phase != self._phase and now - self._heard > _PAUSE):
            self._work_began = now
        self._phase, self._entries, self._octets = phase, entries, octets
        self._show(now)

    def _moved(self, octets: int) -> None:
        self._octets += octets
        self._show(time.monotonic())

    def _show(self, now: float) -> None:
        self._heard = now
        if now - self._work_began < 1 or now - self._shown < 0.2:
            return
        self._shown, progress.wipe = now, self.wipe
        size = f", {size_text(self._octets)}" if self._octets else ""
        self._write(f"\r\x1b[Ksnapbreaker: {self._phase}: {count_text(self._entries, 'path')}{size}")

    def checkpointed(self, record: Record) -> None:
        self._heard = 0.0  # what comes next is another piece of work
        if self.verbosity < 0:
            return
        volumes = record.meta.volumes
        where = ", ".join(f"{volume.stored.volume.root} ({volume.backend})" for volume in volumes)
        self.say(f"checkpoint {record.id} of {where} in {time.monotonic() - self._began:.2f} s")
        if self.verbosity > 0:
            for left in record.meta.left_out:
                self.say(f"left out: {left['path']}: {left['why']}")

    def running(self, record: Record, pid: int) -> None:
        if self.verbosity > 0:
            self.say(f"running, pid {pid}")

    def status(self, record: Record) -> str:
        """How the machine would come back, for a line below the output; empty where none is wanted."""
        named = dict.fromkeys(volume.backend for volume in record.meta.volumes)
        return ", ".join(named) if self._terminal and self.verbosity >= 0 else ""

    def relays(self) -> None:
        """The command's output goes to our own standard output and error, as it is."""

    def confirming(self, record: Record, seconds: float) -> None:
        self.say(f"confirm within {seconds:g} s: snapbreaker confirm {record.id}  (otherwise it is rolled back)")

    def tripped(self, record: Record, story: Story) -> None:
        issue = story.issue
        if issue is not None:
            self._began = self._work_began = self._heard = time.monotonic()
            shown = line_text(issue.line or issue.reason)
            self.say(f"TRIPPED by {issue.type}: {shown[:300]}")
            if issue.line_number:
                place = f"{path_text(issue.source)} line {issue.line_number}"
                self.say(f"  {place}: {line_text(f'{issue.reason} (rule {issue.rule})')}")
            halt = story.halt()
            took = f" {halt.reaction * 1000:.1f} ms after the line was read" if halt and halt.reaction else ""
            self.say(f"the command was stopped{took}; rolling back ...")

    def finished(self, report: Report) -> None:
        from snapbreaker.report.text import render

        self.wipe()
        if self.verbosity < 0 and report.exit_code == 0:
            return
        self._write(render(report, sys.stderr))

    @contextmanager
    def replay(self, record: Record) -> Iterator[Callable[[str, bytes], None]]:
        """Yields what shows a run's output again, by its source; it raises SystemExit when nobody looks on."""
        relays = Relays(None, 0)

        def show(source: str, data: bytes) -> None:
            if source in STREAMS:
                relays.output(source, data)
            else:
                relays.tell(source, data)
            relays.finish(_PATIENCE)
            for number in relays.on_ready({}):
                raise SystemExit(128 + number)

        yield show
        relays.close()

    def replayed(self, report: Report) -> None:
        self.finished(report)

    def failed(self, error: SnapbreakerError) -> None:
        self.say(error.message)
        for path in error.paths if isinstance(error, Conflict) else ():
            self.say(f"conflict: {path_text(os.fsdecode(path))}")
        if error.hint:
            self.say(f"hint: {error.hint}")

    def wipe(self) -> None:
        """Take the line of progress away, before somebody else writes to the terminal."""
        if progress.wipe is not None:
            progress.wipe = None
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        """A terminal that hung up, a full disk, a reader that is gone or does not read: the work goes on."""
        self._voice.write(text)


class EventNarrator:
    """One JSON object a line on standard output (docs/events.md)."""

    def __init__(self, fd: int = 1) -> None:
        self._relay = Relay(fd, lambda source, data: self._writer.encode_output(source, data))
        self._writer = EventWriter(fd, relay=self._relay)
        self._shown = 0.0
        self._hint = ""
        self._began = time.monotonic()

    def hint(self, text: str) -> None:
        """Told right after the start, which is the first event."""
        self._hint = text

    def starting(self, verb: str, request: Request) -> None:
        self._began = time.monotonic()
        event = events.Start(
            verb, list(request.command), request.cwd, os.uname().nodename, str(os.getuid()), request.note
        )
        self._writer.write(event)
        if self._hint:
            self._writer.write(events.Hint(self._hint))

    def progress(self, phase: str, entries: int, octets: int = 0) -> None:
        now = time.monotonic()
        if now - self._shown >= 0.5:
            self._shown = now
            self._writer.write(events.Progress(phase, entries, octets))

    def checkpointed(self, record: Record) -> None:
        self._writer.id = record.id
        volumes = [
            events.VolumeCreated(
                volume.stored.volume.root,
                volume.backend,
                volume.seconds,
                volume.stored.data.get("bytes", 0),
                volume.stored.data.get("frozen", 0.0),
            )
            for volume in record.meta.volumes
        ]
        self._writer.write(events.Checkpoint(time.monotonic() - self._began, volumes, str(record.path)))

    def running(self, record: Record, pid: int) -> None:
        self._writer.write(events.Running(pid))

    def status(self, record: Record) -> str:
        return ""

    def relays(self) -> dict[str, Relay]:
        """The command's output goes out as events; a slow reader holds back the command, not the monitor."""
        return dict.fromkeys(STREAMS, self._relay)

    def confirming(self, record: Record, seconds: float) -> None:
        text = f"waiting {seconds:g} s for `snapbreaker confirm {record.id}`"
        self._writer.write(events.Warned(text))

    def tripped(self, record: Record, story: Story) -> None:
        self._writer.id = record.id
        if story.issue is not None:
            self._writer.write(events.IssueFound.of(story.issue, story.doing()))
        if halt := story.halt():
            pids = [process.pid for process in halt.survivors]
            self._writer.write(events.Halted(halt.reaction, halt.frozen, halt.killed, pids))
        roots = [volume.stored.volume.root for volume in record.meta.volumes]
        self._writer.write(events.Restoring(roots))

    def finished(self, report: Report) -> None:
        self._writer.id = report.id
        phases = {phase.name: phase.seconds for phase in report.timeline}
        changes = report.changes
        if report.outcome is Outcome.OBSERVED:
            for issue in report.issues:
                self._writer.write(events.IssueFound.of(issue, report.doing))
        for note in report.foreign:
            self._writer.write(events.ForeignWrite(note.path, note.text))
        if "restore" in phases:
            total = changes.total if changes else 0
            restored = events.Restored(total, phases["restore"], len(report.failures), report.displaced)
            self._writer.write(restored)
            if "reconcile" in phases:
                units = {unit.path: unit.text for unit in report.units}
                kernel = {one.path: one.text for one in report.kernel}
                self._writer.write(events.Reconciled(units, phases["reconcile"], kernel))
            differing = [*report.differences, *report.failures]
            compared = {each.what: each.count for each in report.compared}
            sample = [f"{each.path}: {each.text}" for each in differing[:20]]
            self._writer.write(events.Verified(len(differing), phases.get("verify", 0.0), compared, sample))
        elif report.kept_change and changes:
            self._writer.write(events.Committed(changes.added, changes.changed, changes.removed, changes.size))
        self._writer.write(events.Finished(report.exit_code, str(report.outcome), report.record + "/report.json"))

    @contextmanager
    def replay(self, record: Record) -> Iterator[Callable[[str, bytes], None]]:
        """Yields what shows the output of a run again, by its source."""
        self._writer.id, meta = record.id, record.meta
        self._writer.write(
            events.Start("run", list(meta.command), meta.cwd, meta.host, str(os.getuid()), meta.note)
        )
        yield self._writer.output

    def replayed(self, report: Report) -> None:
        """The end of a run that was followed from elsewhere."""
        if report.issue is not None and not report.ended_well:
            self._writer.write(events.IssueFound.of(report.issue, report.doing))
        if halt := report.halt:
            pids = [process.pid for process in halt.survivors]
            self._writer.write(events.Halted(halt.reaction, halt.frozen, halt.killed, pids))
        self.finished(report)

    def failed(self, error: SnapbreakerError) -> None:
        for path in error.paths if isinstance(error, Conflict) else ():
            self._writer.write(events.Warned(f"conflict: {os.fsdecode(path)}"))
        self._writer.write(events.ErrorRaised.of(error))
        self._writer.write(events.Finished(int(error.exit_code), str(Outcome.NOT_STARTED)))
