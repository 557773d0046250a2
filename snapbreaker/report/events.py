"""``--json``: what happens in a run, one JSON object a line, for programs.

One dataclass per kind; its fields, their descriptions and its docstring are the schema (``docs/events.md`` is
generated from them by ``scripts/docs``). Every object also has ``event``, ``time`` and ``id``.
Strings follow the report's rule for bytes that are not UTF-8: a lone surrogate U+DC80…U+DCFF stands for a byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, field
from typing import Annotated, ClassVar, Self

from snapbreaker.dataclass import dataclass
from snapbreaker.doing import Doing
from snapbreaker.errors import SnapbreakerError
from snapbreaker.issue import Issue, IssueType


@dataclass(frozen=True, slots=True)
class Event:
    """What all kinds have in common."""

    event: ClassVar[str]


@dataclass(frozen=True, slots=True)
class VolumeCreated:
    """One volume of a checkpoint."""

    root: Annotated[str, "absolute path where the volume starts"]
    backend: Annotated[str, "name of the backend that recorded it"]
    seconds: Annotated[float, "time that the recording took"]
    bytes: Annotated[int, "extra space that it takes"] = 0
    frozen: Annotated[float, "seconds that writers were frozen"] = 0.0


@dataclass(frozen=True, slots=True)
class Start(Event):
    """The verb has begun. Always the first event."""

    event: ClassVar[str] = "start"
    verb: Annotated[str, "`run`, `rollback`, `recover` …"]
    command: Annotated[list[str], "the command and its arguments, empty where there is none"]
    cwd: Annotated[str, "directory that the command runs in"] = ""
    host: Annotated[str, "host name"] = ""
    user: Annotated[str, "who asked"] = ""
    note: Annotated[str, "text of `--note`"] = ""


@dataclass(frozen=True, slots=True)
class Checkpoint(Event):
    """The checkpoint is whole; only now may the command start."""

    event: ClassVar[str] = "checkpoint"
    seconds: Annotated[float, "time that the checkpoint took"]
    volumes: Annotated[list[VolumeCreated], "the volumes that it holds"]
    record: Annotated[str, "directory of the record"] = ""


@dataclass(frozen=True, slots=True)
class Running(Event):
    """The command has started."""

    event: ClassVar[str] = "running"
    pid: Annotated[int, "process id of the command"]


@dataclass(frozen=True, slots=True)
class Output(Event):
    """A piece of the command's output, not a line. All pieces of a source, joined, are its output byte for byte.

    Exactly one of `text` and `base64` is there.
    """

    event: ClassVar[str] = "output"
    source: Annotated[str, "`stdout`, `stderr`, `pty`, a log file's path or `journal:UNIT`"]
    text: Annotated[str | None, "the piece, where it is UTF-8"] = None
    base64: Annotated[str | None, "the piece in base64, where it is not UTF-8"] = None


@dataclass(frozen=True, slots=True)
class AtWork:
    """What one process of the command was at."""

    pid: Annotated[int, "process id"]
    parent: Annotated[int, "that of its parent"]
    depth: Annotated[int, "how far below the command; a process comes right after its parent"]
    command: Annotated[str, "its command line, or `[name]`"]
    state: Annotated[str, "one letter, as ps(1) shows it"]
    wchan: Annotated[str, "the kernel's function that it sleeps in, empty where that is not known"]
    waits: Annotated[str, "what it waits for, in words: the file, the socket, the terminal …"]


@dataclass(frozen=True, slots=True)
class IssueFound(Event):
    """Something tripped the breaker (with `--observe`: would have)."""

    event: ClassVar[str] = "issue"
    type: Annotated[str, "ERROR, WARNING, SKIP, TIMEOUT, UNEXPECTED, EXIT, CHECK or INTERRUPTED"]
    reason: Annotated[str, "why, in a sentence"]
    rule: Annotated[str, "`PACK/NAME` of the rule, or the name of the built-in check"]
    line: Annotated[str, "the exact line as judged, empty where there is none"] = ""
    source: Annotated[str, "where the line came from"] = ""
    line_number: Annotated[int, "number of the line in its source, from 1"] = 0
    detected: Annotated[float, "when it was found, seconds since the epoch"] = 0.0
    signal: Annotated[int, "the signal that ended the command or asked for the halt, else 0"] = 0
    status: Annotated[int | None, "exit status of the command, null while it had none"] = None
    doing: Annotated[list[AtWork], "of a TIMEOUT: what its processes were at before they were frozen"] = field(
        default_factory=list
    )

    @classmethod
    def of(cls, issue: Issue, doing: Iterable[Doing] = ()) -> Self:
        """``doing`` belongs to an issue of type TIMEOUT only."""
        at_work = [AtWork(**asdict(one)) for one in doing] if issue.type is IssueType.TIMEOUT else []
        return cls(
            type=issue.type.value,
            reason=issue.reason,
            rule=issue.rule,
            line=issue.line,
            source=issue.source,
            line_number=issue.line_number,
            detected=issue.time,
            signal=issue.signal,
            status=issue.status,
            doing=at_work,
        )


@dataclass(frozen=True, slots=True)
class Halted(Event):
    """The process tree is frozen and killed."""

    event: ClassVar[str] = "halted"
    reaction: Annotated[float, "seconds from reading the line to the whole tree being frozen"]
    frozen: Annotated[bool, "false when the bounded wait for that ran out (it is killed all the same)"]
    killed: Annotated[int, "processes killed"]
    survivors: Annotated[list[int], "process ids that SIGKILL did not end in time"] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Restoring(Event):
    """Files are being put back."""

    event: ClassVar[str] = "restoring"
    volumes: Annotated[list[str], "roots of the volumes"]


@dataclass(frozen=True, slots=True)
class Restored(Event):
    """Files are back (not yet verified)."""

    event: ClassVar[str] = "restored"
    paths: Annotated[int, "paths put back, created again or taken away"]
    seconds: Annotated[float, "time that it took"]
    failures: Annotated[int, "paths that could not be put back"] = 0
    displaced: Annotated[str, "directory that holds what was taken away"] = ""


@dataclass(frozen=True, slots=True)
class Reconciled(Event):
    """Services follow the files that went back."""

    event: ClassVar[str] = "reconciled"
    units: Annotated[dict[str, str], "what was done to each unit: stopped, started, restarted and why"]
    seconds: Annotated[float, "time that it took"]
    kernel: Annotated[dict[str, str], "what was put back of its state: settings, routes, rules of packets …"] = (
        field(default_factory=dict)
    )


@dataclass(frozen=True, slots=True)
class ForeignWrite(Event):
    """Somebody else wrote in scope during the run."""

    event: ClassVar[str] = "foreign"
    path: Annotated[str, "the file"]
    what: Annotated[str, "who wrote it, and what became of it"]


@dataclass(frozen=True, slots=True)
class Verified(Event):
    """The machine was compared with the checkpoint."""

    event: ClassVar[str] = "verified"
    differences: Annotated[int, "how many things differ; 0 is an exact rollback"]
    seconds: Annotated[float, "time that it took"]
    compared: Annotated[dict[str, int], "what was compared, and how many of it"] = field(default_factory=dict)
    sample: Annotated[list[str], "the first differences; the report lists all"] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Committed(Event):
    """Nothing tripped: the change stays and can still be undone."""

    event: ClassVar[str] = "committed"
    added: Annotated[int, "paths that the command added"]
    changed: Annotated[int, "paths that it changed"]
    removed: Annotated[int, "paths that it removed"]
    bytes: Annotated[int, "space that the undo set takes"] = 0


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """Long work goes on. May come at any time, at most a few a second."""

    event: ClassVar[str] = "progress"
    phase: Annotated[str, "what is being done"]
    entries: Annotated[int, "paths done so far"]
    bytes: Annotated[int, "bytes done so far"] = 0


@dataclass(frozen=True, slots=True)
class Difference(Event):
    """One path that is not what it is in the checkpoint. Only of `checkpoint diff`."""

    event: ClassVar[str] = "difference"
    status: Annotated[str, "`A` added since the checkpoint, `D` deleted, `M` changed, `T` became something else"]
    path: Annotated[str, "absolute path"]
    aspects: Annotated[list[str], "in what it differs: `content`, `mode`, `owner` …; empty of `A` and `D`"]
    text: Annotated[str, "the same for a person, with values"]
    size_then: Annotated[int | None, "bytes in the checkpoint, null where it was not there"]
    size_now: Annotated[int | None, "bytes now, null where it is not there"]
    diff: Annotated[str | None, "unified diff, null without `--text`, empty where there is nothing to show"]


@dataclass(frozen=True, slots=True)
class DirectoryStat(Event):
    """How much differs at and below one path. Only of `checkpoint diff --stat`."""

    event: ClassVar[str] = "stat"
    path: Annotated[str, "absolute path, one name below the volume or the path that was asked for"]
    added: Annotated[int, "paths that were not in the checkpoint"]
    changed: Annotated[int, "paths that are different"]
    removed: Annotated[int, "paths that are not there now"]
    more: Annotated[int, "bytes by which files are larger, or new"]
    less: Annotated[int, "bytes by which files are smaller, or gone"]


@dataclass(frozen=True, slots=True)
class Hint(Event):
    """How the report of a halt could say more. At most one, right after `start`; none with `--no-hint`."""

    event: ClassVar[str] = "hint"
    message: Annotated[str, "what, in one line"]


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something that a person should know and that stops nothing."""

    event: ClassVar[str] = "warning"
    message: Annotated[str, "what, in one line"]


@dataclass(frozen=True, slots=True)
class ErrorRaised(Event):
    """snapbreaker itself could not go on; `finished` follows."""

    event: ClassVar[str] = "error"
    message: Annotated[str, "what failed and where, in one line"]
    hint: Annotated[str, "what to do next"] = ""
    exit_code: Annotated[int, "exit code that this error leads to"] = 70

    @classmethod
    def of(cls, error: SnapbreakerError) -> Self:
        return cls(error.message, error.hint, int(error.exit_code))


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The verb has ended. Always the last event; the process exits with `exit_code`."""

    event: ClassVar[str] = "finished"
    exit_code: Annotated[int, "exit code (docs/exit-codes.md)"]
    outcome: Annotated[str, "success, committed, observed, rolled-back, failed, reboot-pending or not-started"]
    report: Annotated[str, "path of the report, empty where there is none"] = ""


KINDS: tuple[type[Event], ...] = (
    Start,
    Checkpoint,
    Running,
    Output,
    IssueFound,
    Halted,
    Restoring,
    Restored,
    Reconciled,
    ForeignWrite,
    Verified,
    Committed,
    Progress,
    Difference,
    DirectoryStat,
    Hint,
    Warned,
    ErrorRaised,
    Finished,
)
