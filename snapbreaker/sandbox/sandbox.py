"""The sandbox of one run: made before its command starts, entered by it, and kept until its end is known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from snapbreaker import selection
from snapbreaker.backend import Capability
from snapbreaker.checkpoint.record import Record, VolumeRecord
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError
from snapbreaker.linux.mountinfo import read_mounts
from snapbreaker.sandbox import disk, size
from snapbreaker.sandbox.locks import Locks
from snapbreaker.sandbox.namespace import Blueprint, Namespace, make
from snapbreaker.sandbox.places import places
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


def sandboxed(record: Record) -> bool:
    """Whether the command's changes come to the machine only when it is applied."""
    return any(map(is_sandboxed, record.meta.volumes))


class Sandbox:
    """Made by ``of``; ``close`` throws away what the command did, unless it was applied."""

    def __init__(self, record: Record, namespace: Namespace, locks: Locks) -> None:
        self._record, self._namespace, self._locks = record, namespace, locks

    @classmethod
    def of(cls, record: Record, options: Options) -> Sandbox | None:
        """That of the run of ``record``; None when none of its volumes is to have one.

        Holds the locks of package managers from here on. Raises CheckpointError: somebody else does.
        """
        volumes = [(each.stored.volume, each.stored.policy) for each in record.meta.volumes if is_sandboxed(each)]
        if not volumes:
            return None
        locks = Locks.take(volumes)
        try:
            store = str(record.path.parent)
            where = places(volumes, read_mounts(), [store, os.path.realpath(store)])
            if options.upper:
                base, octets = disk.make(record.path, options.upper), 0
            else:
                base, octets = str(record.path / _MEMORY), options.size or size.usual()
                os.mkdir(base, 0o700)
            bindings = [(path, path) for path in options.sockets] + held_back(record)
            namespace = make(Blueprint(base, octets, where, bindings))
        except OSError as error:
            locks.close()
            raise CheckpointError(f"the sandbox could not be made: {error.strerror}: {error.filename}") from error
        except BaseException:
            locks.close()
            raise
        return cls(record, namespace, locks)

    @property
    def uppers(self) -> Uppers:
        return Uppers(self._namespace.uppers)

    def enter(self) -> None:
        """For the process that will be the command."""
        self._namespace.enter()

    def leave(self) -> None:
        """Nothing of the command runs any more: the overlays go, what it wrote stays."""
        self._namespace.leave()

    def close(self) -> None:
        """Idempotent."""
        self._namespace.close()
        self._locks.close()
        with suppress(OSError):
            disk.remove(self._record.path)
