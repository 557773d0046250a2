"""One checkpoint on disk: what was recorded (``meta.json``) and how far its life has gone (``state.json``)."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, field
from pathlib import Path
from typing import Any

from snapbreaker.backend import Stored, Volume
from snapbreaker.checkpoint.owner import Owner
from snapbreaker.checkpoint.states import SETTLED, State, check_edge
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError
from snapbreaker.files.policy import PathClass, Policy
from snapbreaker.files.proof import Proof
from snapbreaker.files.room import NO_SPACE, RESERVE
from snapbreaker.linux.durable import encode_json, read_json, sync_directory, write_file, write_json, write_over
from snapbreaker.linux.process import boot_id

FORMAT = 1
RESERVED = 256 << 10  # bytes: states, a report and what filesystems round up
_SPARE, _SPARED = "state.spare", 16 << 10  # bytes that hold a state, whoever takes all that becomes free


@dataclass(frozen=True, slots=True)
class VolumeRecord:
    """One volume of a checkpoint, with the name of its backend and what makes "unchanged" provable."""

    backend: str
    stored: Stored
    proof: Proof
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        stored = self.stored
        return {
            "backend": self.backend,
            "volume": asdict(stored.volume),
            "vault": stored.vault,
            "record": stored.record,
            "policy": [[os.fsdecode(path), str(cls)] for path, cls in stored.policy.classes],
            "data": stored.data,
            "proof": self.proof.as_dict(),
            "seconds": self.seconds,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> VolumeRecord:
        volume = Volume(**{**data["volume"], "skip": tuple(data["volume"]["skip"])})
        policy = Policy(tuple((os.fsencode(path), PathClass(name)) for path, name in data["policy"]))
        stored = Stored(volume, data["vault"], data["record"], policy, data["data"])
        return cls(data["backend"], stored, Proof.from_dict(data["proof"]), data["seconds"])


@dataclass(slots=True)
class Meta:
    """What is known of a checkpoint from its creation on; never changed afterwards."""

    id: str
    sequence: int
    kind: str  # "run": made for one command; "manual": made by `checkpoint create`
    created: float
    command: list[str]
    cwd: str
    scope: list[str]
    keep: list[str]
    note: str = ""
    host: str = ""
    kernel: str = ""
    left_out: list[dict[str, str]] = field(default_factory=list)
    mounts: list[str] = field(default_factory=list)  # mount points below the scope
    boot: str = ""  # which boot it was made in
    parts: dict[str, bool] = field(default_factory=dict)  # of the system that the scope holds
    foreign: str = "restore"  # what becomes of foreign writes: restore, keep
    free: dict[str, int] = field(default_factory=dict)  # bytes, by volume
    volumes: list[VolumeRecord] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "volumes"}
        return {"format": FORMAT, **plain, "volumes": [volume.as_dict() for volume in self.volumes]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Meta:
        fields = {name: value for name, value in data.items() if name not in ("format", "volumes")}
        return cls(**fields, volumes=[VolumeRecord.from_dict(volume) for volume in data["volumes"]])


class Record:
    """The directory of one checkpoint in the store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name
        self._meta: Meta | None = None
        self._unsaved: dict[str, Any] | None = None  # the state in memory, where the store takes no more

    @property
    def sequence(self) -> int:
        return int(self.id.partition("-")[0])

    @property
    def run_id(self) -> str:
        """A name for the command's cgroup: ids are unique in one store, inodes on the machine."""
        facts = os.stat(self.path)
        return f"{self.id}-{facts.st_dev:x}.{facts.st_ino:x}"

    @property
    def meta(self) -> Meta:
        """Raises CheckpointError when the record is not whole (its creation was cut off)."""
        if self._meta is None:
            data = self._read("meta.json")
            if data.get("format") != FORMAT:
                raise CheckpointError(f"checkpoint {self.id} has format {data.get('format')}, not {FORMAT}")
            try:
                self._meta = Meta.from_dict(data)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise self._damaged("meta.json", repr(error)) from error
        return self._meta

    def save_meta(self, meta: Meta) -> None:
        write_json(str(self.path / "meta.json"), meta.as_dict())
        self._meta = meta

    @property
    def status(self) -> dict[str, Any]:
        """``state.json`` as it is now: state, time, owners, tree (the command's processes).

        Raises CheckpointError when it cannot be read, or is not what was once written there.
        """
        if self._unsaved is not None:
            return self._unsaved
        if not os.path.lexists(self.path / "state.json"):
            if not os.path.isdir(self.path):
                raise CheckpointError(
                    f"the record of checkpoint {self.id} is gone: {self.path}",
                    "without it nothing can be put back; "
                    "what it kept lies in .snapbreaker at each filesystem's top",
                )
            return {"state": State.CREATING, "time": 0.0, "owners": []}  # cut off in its first instant
        data = self._read("state.json")
        try:
            State(data["state"])
            float(data["time"])
            _owners(data)
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged("state.json", repr(error)) from error
        return data

    @property
    def state(self) -> State:
        return State(self.status["state"])

    def begin(self, owners: list[Owner]) -> None:
        """The first state of a new record."""
        self._save_status({"state": State.CREATING, "owners": [owner.as_dict() for owner in owners]})

    def enter(self, new: State, **facts: Any) -> None:
        """Go to state ``new`` durably, before the step that it names begins. ``facts`` are kept with it."""
        status = self.status
        check_edge(State(status["state"]), new)
        self._save_status({**status, **facts, "state": new})

    def pass_through(self, new: State, **facts: Any) -> None:
        """As ``enter``, on the way from one state that `recover` rolls back to another.

        Where the store is full or read-only the work goes on all the same: the state on disk is an earlier one,
        and leads to the same end. Nobody may be told of the end before ``enter`` has succeeded.
        """
        try:
            self.enter(new, **facts)
        except OSError:
            self._unsaved = {**self.status, **facts, "state": new}

    def reserve(self) -> None:
        """Set space aside, so that states can be noted when the command has filled the store's filesystem.

        Raises OSError on one that is full already.
        """
        for name, size in ((_SPARE, _SPARED), (RESERVE, RESERVED)):
            fd = os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, size)
            finally:
                os.close(fd)

    def unreserve(self) -> bool:
        """Give that space back; False when there is none any more."""
        try:
            os.unlink(self.path / RESERVE)
            sync_directory(str(self.path))
        except OSError:
            return False
        return True

    def note(self, **facts: Any) -> None:
        """Add to what is noted of the state. Raises OSError."""
        self._save_status({**self.status, **facts})

    def adopt(self, owners: list[Owner]) -> None:
        """Other processes take over (recover, rollback)."""
        self.note(owners=[owner.as_dict() for owner in owners])

    def owned(self, besides: int = 0) -> bool:
        """Whether a process other than ``besides`` that works on this checkpoint is alive."""
        return _owned(self.status, besides)

    def is_of(self, pid: int) -> bool:
        """Whether the process ``pid``, dead or alive, works on it. Of a damaged record nobody does."""
        try:
            return any(owner.pid == pid for owner in _owners(self.status))
        except CheckpointError:
            return False

    def unfinished(self) -> bool:
        """Whether its owners died in the middle: `recover` has something to do."""
        status = self.status
        state = State(status["state"])
        if state is State.REBOOT_PENDING:
            return bool(status["at_boot"]["boot"] != boot_id())
        if state in SETTLED and state is not State.READY:
            return False
        return not _owned(status) and (state is not State.READY or self.meta.kind == "run")

    @property
    def pinned(self) -> bool:
        return (self.path / "pinned").exists()

    def pin(self, on: bool) -> None:
        if on:
            (self.path / "pinned").touch(mode=0o600)
        else:
            (self.path / "pinned").unlink(missing_ok=True)

    def _save_status(self, status: dict[str, Any]) -> None:
        data = encode_json({**status, "time": time.time()})
        path = str(self.path / "state.json")
        try:
            write_file(path, data)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            try:
                write_over(str(self.path / _SPARE), path, data)
            except OSError:
                if not self.unreserve():
                    raise error from None
                write_file(path, data)
        self._unsaved = None

    def _read(self, name: str) -> dict[str, Any]:
        try:
            data = read_json(str(self.path / name))
        except FileNotFoundError as error:
            raise CheckpointError(
                f"checkpoint {self.id} is not whole: {name} is missing", "run `snapbreaker recover`"
            ) from error
        except ValueError as error:
            raise self._damaged(name, str(error)) from error
        except OSError as error:
            raise self._damaged(name, str(error.strerror)) from error
        if not isinstance(data, dict):
            raise self._damaged(name, "not a JSON object")
        return data

    def _damaged(self, name: str, why: str) -> CheckpointError:
        return CheckpointError(
            f"checkpoint {self.id} is damaged: {self.path / name}: {why}",
            f"put the file back from a backup, or give up what it could undo: checkpoint delete --force {self.id}",
        )


def _owned(status: dict[str, Any], besides: int = 0) -> bool:
    return any(owner.pid != besides and owner.alive() for owner in _owners(status))


def _owners(status: dict[str, Any]) -> list[Owner]:
    return [Owner(**owner) for owner in status.get("owners", [])]
