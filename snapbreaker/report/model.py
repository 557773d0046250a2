"""The one model of what happened in a run. Every renderer reads it, and nothing else.

Strings that come from the machine (paths, arguments) may hold bytes that are not UTF-8, as lone surrogates
U+DC80…U+DCFF (``surrogateescape``); JSON keeps them as ``\\udcXX`` escapes, so the round trip is exact.
Times are seconds since the epoch, durations seconds, sizes bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, field, fields
from enum import StrEnum
from typing import Any, Protocol, Self

from snapbreaker.dataclass import dataclass
from snapbreaker.doing import Doing
from snapbreaker.errors import CheckpointError
from snapbreaker.files.entry import Aspect, Change, aspect_names
from snapbreaker.issue import Issue

VERSION = 1
SAMPLE_LIMIT = 200


class Outcome(StrEnum):
    """How a run ended."""

    SUCCESS = "success"  # nothing tripped; the change stays and there was nothing to commit
    COMMITTED = "committed"  # nothing tripped; the change stays and has an undo set
    HELD = "held"  # nothing tripped; the change waits in its sandbox, and the machine is as it was
    OBSERVED = "observed"  # --observe: issues are listed, nothing was halted
    ROLLED_BACK = "rolled-back"  # restored and verified
    FAILED = "failed"  # restored with differences, or not restored: manual intervention
    REBOOT_PENDING = "reboot-pending"  # the restore takes effect at the next boot
    NOT_STARTED = "not-started"  # no valid checkpoint, or refused beforehand: the command never ran


class CheckpointStatus(StrEnum):
    """The operator's protocol: these words are the report's contract."""

    COMPLETED = "Rollback completed successfully"
    FAILED = "Rollback failed - manual intervention required"
    PENDING = "Rollback prepared - takes effect at reboot"
    NOT_NEEDED = "Not needed: the command ended without an issue, and the change stays"
    HELD = "Not needed: the change waits in its sandbox, and the machine is as it was"
    OBSERVED = "Not needed: only observed, nothing was halted and the change stays"
    NONE = "Not needed: the command was not started, and nothing was changed"


class LineLike(Protocol):
    """What the monitor keeps of a line of output."""

    @property
    def source(self) -> str: ...
    @property
    def number(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def time(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Line:
    """One line of output, as judged; ``number`` counts from 1 within its source."""

    source: str
    number: int
    text: str
    time: float = 0.0

    @classmethod
    def of(cls, line: LineLike) -> Line:
        return cls(line.source, line.number, line.text, line.time)


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of the run: ``checkpoint``, ``run``, ``halt``, ``restore``, ``reconcile``, ``verify``, ``commit`` …

    ``detail`` is what a person should know of it, without the time: ``214 paths put back``.
    """

    name: str
    started: float
    seconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Process:
    """A process: ``state`` is the letter of proc_pid_stat(5), empty when it is not known."""

    pid: int
    comm: str
    state: str = ""


@dataclass(frozen=True, slots=True)
class Halt:
    """How the process tree was stopped.

    ``reaction`` is seconds from reading the line to the whole tree being frozen, ``frozen`` false when the
    bounded wait for that ran out. ``survivors`` are those that SIGKILL did not end in time (state D).
    """

    reaction: float
    frozen: bool
    killed: int
    seconds: float = 0.0
    survivors: list[Process] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class VolumeReport:
    """One volume of the checkpoint.

    ``seconds`` to create it, ``size`` extra bytes that it takes, ``frozen`` seconds that writers had to wait.
    """

    root: str
    backend: str
    seconds: float = 0.0
    size: int = 0
    frozen: float = 0.0


@dataclass(frozen=True, slots=True)
class PathAspects:
    """One path that differs, absolute, and in what respects (names of ``Aspect``, lower case)."""

    path: str
    aspects: tuple[str, ...]


@dataclass(slots=True)
class Changes:
    """What the command had changed. ``size`` is the bytes of the files that it added or gave new content."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    size: int = 0
    sample: list[PathAspects] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.added + self.changed + self.removed

    def add(self, root: str, changes: Iterable[Change]) -> None:
        """Count the engine's changes of the volume at ``root``.

        Paths whose times alone differ come into the sample only where it has room.
        """
        times_only: list[PathAspects] = []
        for change in changes:
            self._count(change)
            sample = times_only if change.aspects == Aspect.MTIME else self.sample
            if len(sample) < SAMPLE_LIMIT:
                sample.append(PathAspects(absolute(root, change.path), aspect_names(change.aspects)))
        self.sample.extend(times_only[: SAMPLE_LIMIT - len(self.sample)])

    def join(self, other: Changes) -> None:
        """Count those of ``other`` too."""
        self.added += other.added
        self.changed += other.changed
        self.removed += other.removed
        self.size += other.size
        self.sample.extend(other.sample[: SAMPLE_LIMIT - len(self.sample)])

    def _count(self, change: Change) -> None:
        if change.old is None:
            self.added += 1
        elif change.new is None:
            self.removed += 1
        else:
            self.changed += 1
        rewritten = change.aspects & (Aspect.ADDED | Aspect.CONTENT | Aspect.TYPE)
        if rewritten and change.new is not None and change.new.is_file:
            self.size += change.new.size


@dataclass(frozen=True, slots=True)
class PathNote:
    """A path (or the name of a package, unit or setting) and what is to be said of it."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One thing that verify compared (``paths below /srv``, ``unit states`` …) and how many (0: not counted)."""

    what: str
    count: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Report:
    """All that is known of one run (or of a rollback or recovery, then ``verb`` says so).

    ``invocation`` is snapbreaker's own command line as typed, up to and without ``--``; ``command`` is what
    follows. ``compared`` empty means that nothing was verified. ``displaced`` is the directory that holds what
    the restore took away, ``foreign`` what others wrote meanwhile, ``units`` what was done to units after it,
    ``kernel`` what was put back of the kernel's state.
    ``status`` and ``signal`` are the command's own, None and 0 where there is none. ``doing``: what its processes
    were at when it was halted for silence or time.
    """

    id: str
    command: list[str]
    outcome: Outcome
    exit_code: int
    verb: str = "run"
    invocation: list[str] = field(default_factory=lambda: ["snapbreaker", "run"])
    note: str = ""
    cwd: str = ""
    host: str = ""
    user: str = ""
    started: float = 0.0
    ended: float = 0.0
    status: int | None = None
    signal: int = 0
    lines: dict[str, int] = field(default_factory=dict)
    issue: Issue | None = None
    issues: list[Issue] = field(default_factory=list)  # the first ones of each rule
    found: dict[str, int] = field(default_factory=dict)  # how many issues there were, by rule
    before: list[Line] = field(default_factory=list)
    after: list[Line] = field(default_factory=list)
    volumes: list[VolumeReport] = field(default_factory=list)
    timeline: list[Phase] = field(default_factory=list)
    halt: Halt | None = None
    doing: list[Doing] = field(default_factory=list)
    changes: Changes | None = None
    compared: list[Comparison] = field(default_factory=list)
    differences: list[PathNote] = field(default_factory=list)
    failures: list[PathNote] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left_out: list[PathNote] = field(default_factory=list)
    foreign: list[PathNote] = field(default_factory=list)
    units: list[PathNote] = field(default_factory=list)
    kernel: list[PathNote] = field(default_factory=list)
    displaced: str = ""
    record: str = ""
    warnings: list[str] = field(default_factory=list)
    error: str = ""
    hint: str = ""

    @property
    def checkpoint_status(self) -> CheckpointStatus:
        """The operator's verdict. Never *completed* while anything in the report speaks against it."""
        if self.outcome is Outcome.ROLLED_BACK:
            survivors = self.halt.survivors if self.halt else []
            sound = self.compared and not (self.differences or self.failures or survivors)
            return CheckpointStatus.COMPLETED if sound else CheckpointStatus.FAILED
        return STATUS[self.outcome]

    @property
    def issues_found(self) -> int:
        """How many there were, also those that ``issues`` leaves out."""
        return max(sum(self.found.values()), len(self.issues))

    def first_issues(self, each: int, most: int) -> list[Issue]:
        """Not more than ``each`` of one rule and ``most`` in all, in their order."""
        shown: list[Issue] = []
        for issue in self.issues:
            if len(shown) < most and sum(one.rule == issue.rule for one in shown) < each:
                shown.append(issue)
        return shown

    @property
    def kept_change(self) -> bool:
        """Whether what the command did is on the machine, on purpose."""
        return self.outcome in (Outcome.SUCCESS, Outcome.COMMITTED, Outcome.OBSERVED)

    @property
    def ended_well(self) -> bool:
        """Whether nothing tripped: the change is on the machine, or waits."""
        return self.kept_change or self.outcome is Outcome.HELD

    @property
    def seconds(self) -> float:
        return max(0.0, self.ended - self.started)

    def set_context(self, lines: Sequence[LineLike]) -> None:
        """Split ``lines`` at the one that tripped; where it is not among them, all count as before."""
        found = len(lines)
        if self.issue is not None and self.issue.line_number:
            place = (self.issue.source, self.issue.line_number)
            found = next((n for n, line in enumerate(lines) if (line.source, line.number) == place), found)
        self.before = [Line.of(line) for line in lines[:found]]
        self.after = [Line.of(line) for line in lines[found + 1 :]]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the version of the format."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of ``as_dict``. Unknown keys are left out, missing ones get their default.

        Raises CheckpointError for a newer version or data that is not a report.
        """
        version = data.get("version")
        if not isinstance(version, int) or version > VERSION:
            raise CheckpointError(f"report has format version {version!r}, this snapbreaker reads up to {VERSION}")
        try:
            return cls(**_built(cls, data))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(f"not a report: {error}") from error


STATUS = {
    Outcome.SUCCESS: CheckpointStatus.NOT_NEEDED,
    Outcome.COMMITTED: CheckpointStatus.NOT_NEEDED,
    Outcome.HELD: CheckpointStatus.HELD,
    Outcome.OBSERVED: CheckpointStatus.OBSERVED,
    Outcome.FAILED: CheckpointStatus.FAILED,
    Outcome.REBOOT_PENDING: CheckpointStatus.PENDING,
    Outcome.NOT_STARTED: CheckpointStatus.NONE,
}


def absolute(root: str, path: bytes) -> str:
    """An ``Entry.path`` of the tree at ``root`` as an absolute path, str with surrogateescape."""
    if not path:
        return root
    return root.rstrip("/") + "/" + path.decode("utf-8", "surrogateescape")


def _known(cls: type[Any], data: dict[str, Any]) -> dict[str, Any]:
    names = {item.name for item in fields(cls)}
    return {name: value for name, value in data.items() if name in names}


def _built(cls: type[Any], data: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments: what JSON made plain becomes the model's classes again."""
    arguments = _known(cls, data)
    arguments["outcome"] = Outcome(arguments["outcome"])
    for name, item in LISTS.items():
        arguments[name] = [item(**_known(item, value)) for value in arguments.get(name, [])]
    arguments["issues"] = [Issue.from_dict(_known(Issue, value)) for value in arguments.get("issues", [])]
    if arguments.get("issue") is not None:
        arguments["issue"] = Issue.from_dict(_known(Issue, arguments["issue"]))
    if arguments.get("halt") is not None:
        halt = _known(Halt, arguments["halt"])
        halt["survivors"] = [Process(**_known(Process, value)) for value in halt.get("survivors", [])]
        arguments["halt"] = Halt(**halt)
    if arguments.get("changes") is not None:
        changes = _known(Changes, arguments["changes"])
        sample = changes.get("sample", [])
        changes["sample"] = [PathAspects(value["path"], tuple(value["aspects"])) for value in sample]
        arguments["changes"] = Changes(**changes)
    return arguments


LISTS: dict[str, type[Any]] = {
    "before": Line,
    "after": Line,
    "volumes": VolumeReport,
    "timeline": Phase,
    "doing": Doing,
    "compared": Comparison,
    "differences": PathNote,
    "failures": PathNote,
    "left_out": PathNote,
    "foreign": PathNote,
    "units": PathNote,
    "kernel": PathNote,
}
