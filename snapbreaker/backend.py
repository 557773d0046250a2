"""The interface of a backend: how one volume's files are recorded and read back.

It is the file engine that restores, from the ``Tree`` that the backend opens, unless the backend can take the
whole volume back in one step; what it did is compared in any case. The core asks a
backend what it *can* do (``capabilities``), never who it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import field
from enum import Flag, auto
from typing import Any, ClassVar

from snapbreaker.dataclass import dataclass
from snapbreaker.files.changetree import ChangeTree
from snapbreaker.files.entry import Change
from snapbreaker.files.policy import Policy
from snapbreaker.files.tree import Tree
from snapbreaker.files.undo import UndoSet
from snapbreaker.guard.guards import Guards
from snapbreaker.guard.inodes import InodeSet
from snapbreaker.progress import Progress, silent


class Capability(Flag):
    NONE = 0
    INSTANT = auto()  # create costs the same whatever the size of the volume
    WHOLE = auto()  # the checkpoint stays whole after commit: rollback --whole can take the volume back
    AT_BOOT = auto()  # can be reverted as a whole at boot
    NEXT_ROOT = auto()  # what replaces it at boot can be mounted before
    REVERT = auto()  # can be taken back as a whole while the machine runs, where nobody works in it
    SANDBOX = auto()  # the command runs in a private mount namespace, and what it did is applied afterwards


@dataclass(frozen=True, slots=True)
class Volume:
    """One tree in scope on one mounted filesystem.

    All paths are absolute, str with surrogateescape. ``root`` is where the tree starts (a scope directory, or a
    mount point below one), ``mountpoint`` the top of the mount that holds it (the vault lies there), ``skip`` the
    mount points below ``root`` that are other volumes or left out. ``device`` is ``major:minor`` of mountinfo.
    """

    number: int
    root: str
    mountpoint: str
    fstype: str
    source: str
    device: str
    skip: tuple[str, ...] = ()

    @property
    def vault_base(self) -> str:
        """The directory on this volume that holds the vaults of all checkpoints."""
        return self.mountpoint.rstrip("/") + "/.snapbreaker"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a backend cannot serve a volume, and what would change that.

    ``of_memory``: it is none where a sandbox keeps what is written on a disk.
    """

    text: str
    remedy: str = ""
    of_memory: bool = False


@dataclass(frozen=True, slots=True)
class Availability:
    """A list of reasons, not a bool. ``notes`` are said even when it is available (cost, limits)."""

    reasons: tuple[Reason, ...] = ()
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.reasons


@dataclass(frozen=True, slots=True)
class Revert:
    """Whether a volume went back as a whole, or is marked for that. ``note`` is for the report, empty for nothing:
    where what was taken away is kept, or what keeps the volume from it.
    """

    done: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Creation:
    """What a backend is told when it makes a checkpoint of a volume."""

    checkpoint: str  # id
    vault: str  # absolute path of this checkpoint's own directory on the volume; exists, empty, 0700
    record: str  # absolute path of a directory of the record for this volume (manifest); exists, empty, 0700
    policy: Policy
    progress: Progress = silent
    guards: Guards | None = None  # may be used to guard what is not copied; None: nobody would end them
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stored:
    """One volume of a checkpoint as it lies on disk. ``data`` is the backend's own, JSON-serialisable."""

    volume: Volume
    vault: str
    record: str
    policy: Policy
    data: dict[str, Any]


class Backend(ABC):
    """How one volume's files are recorded. Instances have no state; everything is in ``Stored``."""

    name: ClassVar[str]
    rank: ClassVar[int]  # lower is tried first by automatic selection
    capabilities: ClassVar[Capability] = Capability.NONE
    # Lines for sh(1) that `install-service` has run in the initramfs, once a root was looked for: they mend what
    # `schedule` leaves where the power goes in its middle. $ROOT is what the kernel's command line names.
    first_aid: ClassVar[str] = ""
    # Likewise, but only before a run that was cut off is undone there: they bring its checkpoint within reach.
    in_reach: ClassVar[str] = ""
    # Rules of udev(7) that `install-service` puts in force at every boot, in the initramfs too.
    udev_rules: ClassVar[str] = ""

    @abstractmethod
    def availability(self, volume: Volume) -> Availability:
        """Whether this backend can serve the volume now. Changes nothing."""

    @abstractmethod
    def create(self, volume: Volume, creation: Creation) -> dict[str, Any]:
        """Record the volume's files; returns the data for ``Stored``.

        Whole or not at all: raises CheckpointError (or OSError) and the caller calls ``discard``.
        ``data["bytes"]`` is the extra space used, ``data["frozen"]`` seconds that writers were frozen.
        """

    def create_all(self, wanted: Sequence[tuple[Volume, Creation]]) -> Iterator[dict[str, Any]]:
        """``create`` for each of several volumes in turn; a backend may record them all at one instant."""
        for volume, creation in wanted:
            yield self.create(volume, creation)

    @abstractmethod
    def open(self, stored: Stored) -> Tree:
        """The files as they were. System calls only. Raises CheckpointError when they are no longer whole."""

    @abstractmethod
    def discard(self, volume: Volume, vault: str, record: str) -> None:
        """Remove everything that ``create`` made, whole or not, told only by the names in the vault.

        Idempotent; leaves ``vault`` itself to the caller. System calls only.
        """

    def release(self, stored: Stored) -> None:  # noqa: B027
        """After commit, when the undo set has content of its own: drop what is no longer needed. Idempotent."""

    def undo(self, stored: Stored) -> ChangeTree:
        """What the paths were that a committed run changed. Raises CheckpointError when it is no longer whole."""
        return UndoSet.open(stored.record, stored.vault)

    def keeps_links(self, stored: Stored) -> bool:
        """Whether the checkpoint shares inodes with the machine's files, which have a further link therefore."""
        return False

    def lingers(self, stored: Stored) -> bool:
        """Whether the checkpoint costs something while it is there: it is released as soon as the run is over."""
        return False

    def gauges(self, stored: Stored) -> Sequence[Callable[[], str]]:
        """What may fill up while the command runs, beside the volume itself.

        Each says, by system calls only and in a forked process, why the run must stop now, while a rollback still
        fits; an empty text while it need not. Raises CheckpointError, OSError.
        """
        return ()

    def make_room(self, stored: Stored, octets: Callable[[], int], paths: int) -> None:  # noqa: B027
        """Before a restore out of the checkpoint writes ``octets()`` of content for ``paths`` paths to the volume.

        Where that would make the checkpoint itself overflow it gets more room. Raises RestoreError where there is
        none: nothing was put back yet, and the checkpoint is still whole.
        """

    def mark(self, stored: Stored, octets: int) -> Revert:
        """Ahead of a comparison: whatever is written to the volume from now on keeps ``revert`` from its work.

        Called again, only what is written after the last time counts. Not done where the file engine does better,
        which would write ``octets`` of content.
        Only where ``REVERT`` is declared, as the next two. Raises SnapbreakerError, OSError.
        """
        raise NotImplementedError

    def revert(self, stored: Stored, changes: Sequence[Change]) -> Revert:
        """After ``mark``: take the volume back as a whole, but for what is kept; what was there is kept aside.

        At any instant it is as before or as the checkpoint has it. Not done where anybody uses it, or more would
        be lost than what has changed since: newer snapshots, what others write meanwhile. ``changes`` are all that
        was found. Raises as ``mark``; RestoreError where it went back, and the kernel shows something else.
        """
        raise NotImplementedError

    def settle(self, stored: Stored) -> None:
        """Whatever the two above have left, cut off or not, goes; not what was taken away. Idempotent. Raises as
        ``mark``.
        """
        raise NotImplementedError

    def borrowed(self, stored: Stored) -> Collection[InodeSet]:
        """For each vault on the volume, also of other checkpoints, the inodes of which it has a hard link."""
        return ()

    def at_boot(self, stored: Stored) -> Availability:
        """Whether the volume can be replaced as a whole by the checkpoint at the next boot."""
        return Availability((Reason("its files go back one by one"),))

    def schedule(self, stored: Stored) -> None:
        """Have that done. Idempotent. What runs is not affected; at any instant a boot finds one whole volume.

        Of several volumes an inner one comes before that in which it lies.
        Only where ``AT_BOOT`` is declared. Raises CheckpointError, OSError.
        """
        raise NotImplementedError

    def mount_next(self, stored: Stored, point: str) -> None:
        """Mount at ``point`` what the next boot will find. Only where ``NEXT_ROOT`` is declared, and after
        ``schedule``. Raises ToolError, OSError.
        """
        raise NotImplementedError

    def call_off(self, stored: Stored) -> None:
        """Have it not done. Idempotent, also where it was never scheduled. CheckpointError after that boot."""
        raise NotImplementedError

    def reverted(self, stored: Stored) -> bool:
        """Whether it was done: the machine runs on the checkpoint."""
        return False

    def after_boot(self, volume: Volume) -> None:  # noqa: B027
        """Where it was done: bring what is kept from the old volume, once. Cut off, it is done again."""
