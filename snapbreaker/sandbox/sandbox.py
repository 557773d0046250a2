"""The sandbox of one run: made before its command starts, entered by it, and kept until its end is known."""

from __future__ import annotations

import os
from collections.abc import Sequence

from snapbreaker import selection
from snapbreaker.backend import Capability, Volume
from snapbreaker.checkpoint.record import Record, VolumeRecord
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError
from snapbreaker.files.policy import Policy
from snapbreaker.linux.mountinfo import read_mounts
from snapbreaker.linux.systemd import SystemdError
from snapbreaker.sandbox import disk, keeper, size
from snapbreaker.sandbox.locks import Locks
from snapbreaker.sandbox.namespace import Blueprint, Namespace, make
from snapbreaker.sandbox.places import places
from snapbreaker.sandbox.removals import Removals
from snapbreaker.sandbox.services import held_back
from snapbreaker.sandbox.upper import Uppers

_MEMORY = "sandbox"  # the directory in the record over which memory is mounted, where only the sandbox sees it


@dataclass(frozen=True, slots=True)
class Options:
    """``upper``: a directory to keep what the command writes in, instead of memory. ``size``: octets of memory;
    0: a part of what is available. ``sockets`` below /run are the machine's own.
    """

    upper: str = ""
    size: int = 0
    sockets: Sequence[str] = ()


def is_sandboxed(volume: VolumeRecord) -> bool:
    return Capability.SANDBOX in selection.load(volume.backend).capabilities


def _explained(error: BaseException) -> BaseException:
    """Whatever fails in the middle means that there is no sandbox, and nothing is run."""
    if isinstance(error, OSError):
        return CheckpointError(f"the sandbox could not be made: {error.strerror}: {error.filename}")
    if isinstance(error, SystemdError):
        return CheckpointError(error.message, error.hint)
    return error


def boxed_volumes(record: Record) -> list[tuple[Volume, Policy]]:
    return [(each.stored.volume, each.stored.policy) for each in record.meta.volumes if is_sandboxed(each)]


def sandboxed(record: Record) -> bool:
    """Whether the command's changes come to the machine only when it is applied."""
    return bool(boxed_volumes(record))


def drop(record: Record) -> None:
    """Whatever is left of the sandbox of a run goes. Idempotent. Raises OSError, SnapbreakerError."""
    keeper.kill(record.status.get("sandbox", {}))
    disk.remove(record.path)


class Sandbox:
    """Made by ``of``; ``close`` throws away what the command did, unless it was applied."""

    def __init__(self, namespace: Namespace, locks: Locks, removals: Removals, shared: Sequence[str]) -> None:
        self._namespace, self.locks, self._removals = namespace, locks, removals
        self.shared = shared  # sockets of the machine that the command could use

    @classmethod
    def of(cls, record: Record, options: Options) -> Sandbox | None:
        """That of the run of ``record``; None when none of its volumes is to have one.

        Holds the locks of package managers from here on. Raises CheckpointError: somebody else does.
        """
        volumes = boxed_volumes(record)
        if not volumes:
            return None
        locks, removals = Locks.take(volumes), Removals()
        try:
            removals.watch(volume for volume, _ in volumes)
            store = str(record.path.parent)
            where = places(volumes, read_mounts(), [store, os.path.realpath(store)])
            if options.upper:
                base, octets = disk.make(record.path, options.upper), 0
            else:
                base, octets = str(record.path / _MEMORY), size.checked(options.size) or size.usual()
                os.mkdir(base, 0o700)
            bindings = [(path, path) for path in options.sockets] + held_back(record)
            namespace = make(Blueprint(base, octets, where, bindings))
        except BaseException as error:
            locks.close()
            removals.close()
            raise _explained(error) from error
        return cls(namespace, locks, removals, options.sockets)

    @property
    def uppers(self) -> Uppers:
        return Uppers(self._namespace.uppers, self._removals)

    def enter(self) -> None:
        """For the process that will be the command."""
        self._namespace.enter()

    def leave(self) -> None:
        """Nothing of the command runs any more: the overlays go, what it wrote stays."""
        self._namespace.leave()

    def close(self) -> None:
        """Idempotent. What is on a disk goes with the end of the run, see ``drop``."""
        self._namespace.close()
        self._removals.close()
        self.locks.close()
