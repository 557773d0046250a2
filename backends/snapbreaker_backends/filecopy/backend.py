"""The filecopy backend: serves every filesystem that can be written to."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any

from snapbreaker.backend import Availability, Backend, Capability, Creation, Reason, Stored, Volume
from snapbreaker.errors import CheckpointError
from snapbreaker.files.manifest_writer import ManifestWriter
from snapbreaker.files.tree import Tree
from snapbreaker.guard import guard
from snapbreaker.guard.inodes import InodeSet
from snapbreaker.guard.saved import BEAT, LOG, PACKS
from snapbreaker.linux.filesystems import Kind, kind
from snapbreaker.linux.times import are_fine
from snapbreaker_backends.filecopy.linking import LinkingRecorder
from snapbreaker_backends.filecopy.links import LINKS, links_of_all, remove_links
from snapbreaker_backends.filecopy.pack import PackWriter, can_clone
from snapbreaker_backends.filecopy.recorder import Recorder
from snapbreaker_backends.filecopy.space import allocated, free, shown
from snapbreaker_backends.filecopy.tree import CopiedTree, LinkedTree
from snapbreaker_backends.filecopy.unheard import container_stores
from snapbreaker_backends.filecopy.vouched import VOUCHED

_PACK = "content.pack"  # in the vault
_MANIFEST = "manifest"  # in the record
_RATE = 150e6  # bytes/s of a copy, where nothing better is known
_DIGEST = 32  # bytes at the end of a manifest
_CLONING = frozenset({"xfs", "btrfs", "bcachefs"})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class FilecopyBackend(Backend):
    name = "filecopy"
    rank = 100
    capabilities = Capability.NONE

    def availability(self, volume: Volume) -> Availability:
        return Availability(tuple(_refusals(volume)), tuple(_notes(volume)))

    def create(self, volume: Volume, creation: Creation) -> dict[str, Any]:
        """Link or copy everything; see ``Recorder`` for how it becomes one truth, ``Backend.create`` for the
        rest.
        """
        started = time.monotonic()
        clone = can_clone(creation.vault)
        guards = creation.guards
        alone = guards is not None and not guards.has(volume.mountpoint)
        links = not clone and alone and not _no_links(volume)
        needed = 0 if clone or links else self._require_space(volume, creation)
        pack_path, manifest_path = _places(creation.vault, creation.record)
        try:
            pack = PackWriter(pack_path, clone)
            try:
                recorder = (LinkingRecorder if links else Recorder)(volume, creation, pack)
                try:
                    with ManifestWriter(manifest_path) as manifest:
                        proof = recorder.record(manifest)
                finally:
                    recorder.close()
            finally:
                pack.abort()  # flushed and synced by the recorder
        except OSError as error:
            raise _failure(volume, creation, error, needed) from error
        return {
            "bytes": pack.copied,
            "frozen": recorder.frozen_seconds,
            "frozen_writers": recorder.frozen_writers,
            "seconds": time.monotonic() - started,
            "proof": proof.as_dict(),
            "entries": manifest.records,
            "cloned": clone,
            "linked": links,
            "unheard": [os.fsdecode(path) for path in container_stores(volume)] if links else [],
            **_identity(pack_path, manifest_path),
        }

    def open(self, stored: Stored) -> Tree:
        """Manifest and pack, after a check that both are those that were made; see ``Backend.open``."""
        pack_path, manifest_path = _places(stored.vault, stored.record)
        try:
            found = _identity(pack_path, manifest_path)
            for key, value in found.items():
                if stored.data[key] != value:
                    raise CheckpointError(
                        f"the copy of {stored.volume.root} was changed since it was made: {key}",
                        "this checkpoint is lost",
                    )
            pack = os.open(pack_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if stored.data["linked"]:
                    return LinkedTree(
                        manifest_path, pack, stored.vault, [*map(os.fsencode, stored.data["unheard"])]
                    )
                return CopiedTree(manifest_path, pack)
            except BaseException:
                os.close(pack)
                raise
        except FileNotFoundError as error:
            raise CheckpointError(
                f"the copy of {stored.volume.root} was given back, or is lost: {error.filename} is not there",
                "of a run that was committed or rolled back only what it changed is kept",
            ) from error
        except OSError as error:
            raise CheckpointError(
                f"the copy of {stored.volume.root} is not whole: {error}", "this checkpoint is lost"
            ) from error

    def keeps_links(self, stored: Stored) -> bool:
        return os.path.isdir(os.path.join(stored.vault, LINKS))

    def borrowed(self, stored: Stored) -> Collection[InodeSet]:
        return links_of_all(stored.volume.vault_base)

    def discard(self, volume: Volume, vault: str, record: str) -> None:
        pack, manifest = _places(vault, record)
        remove_links(vault)
        saved = [os.path.join(vault, name) for name in (LOG, BEAT, VOUCHED, *PACKS)]
        names = os.listdir(record) if os.path.isdir(record) else []
        parts = [os.path.join(record, name) for name in names if name.startswith(_MANIFEST + ".")]
        for path in (pack, manifest, *parts, *saved):
            with suppress(FileNotFoundError):
                os.unlink(path)

    def release(self, stored: Stored) -> None:
        self.discard(stored.volume, stored.vault, stored.record)

    def _require_space(self, volume: Volume, creation: Creation) -> int:
        """Bytes that a full copy takes, at most; CheckpointError when there is not so much room."""
        facts = os.statvfs(volume.mountpoint)
        bound = (facts.f_blocks - facts.f_bfree) * facts.f_frsize
        room = free(volume)
        if bound < room:
            return bound
        needed = allocated(volume, creation)
        if needed > room:
            raise _no_space(volume, needed, room)
        return needed


def _places(vault: str, record: str) -> tuple[str, str]:
    return os.path.join(vault, _PACK), os.path.join(record, _MANIFEST)


def _identity(pack_path: str, manifest_path: str) -> dict[str, Any]:
    """What shows that neither file was changed or swapped since: cheap, so not the digest of all content."""
    facts = os.lstat(pack_path)
    with open(manifest_path, "rb") as file:
        file.seek(-_DIGEST, os.SEEK_END)
        digest = file.read().hex()
    return {"pack_size": facts.st_size, "pack_mtime_ns": facts.st_mtime_ns, "manifest": digest}


def _refusals(volume: Volume) -> Iterator[Reason]:
    if os.statvfs(volume.mountpoint).f_flag & os.ST_RDONLY:
        yield Reason(f"{volume.mountpoint} is mounted read-only", f"mount -o remount,rw {volume.mountpoint}")
    if os.geteuid() != 0:
        yield Reason("copies of everything, with owners and capabilities, need root", "run snapbreaker as root")
    if not os.path.exists("/proc/self/mountinfo"):
        yield Reason("who has files open cannot be told without /proc", "mount -t proc proc /proc")


def _no_links(volume: Volume) -> str:
    """Why hard links cannot stand for copies; empty when they can."""
    if why := guard.unavailable(volume.mountpoint):
        return why
    if not are_fine(volume.mountpoint):
        return "its file times are whole seconds, which do not tell whether a file was changed in place"
    return ""


def _notes(volume: Volume) -> Iterator[str]:
    facts = os.statvfs(volume.mountpoint)
    used = (facts.f_blocks - facts.f_bfree) * facts.f_frsize
    copies = f"copies at most {shown(used)}, in about {used / _RATE:,.0f} s at {_RATE / 1e6:.0f} MB/s"
    if volume.fstype in _CLONING:
        yield f"copies share their data with the files where {volume.fstype} can (reflink)"
    elif not (why := _no_links(volume)):
        yield "a run keeps files by hard links, and a guard saves what is changed in place (docs/filecopy.md)"
        yield f"`checkpoint create` {copies}; {shown(free(volume))} are free"
    else:
        yield f"each checkpoint {copies}; {shown(free(volume))} are free"
        yield f"no hard links instead of copies: {why}"
    if volume.fstype in ("vfat", "msdos"):
        yield "it has no owners, modes, links or attributes: names, content and times (of 2 s) are compared"
    if kind(volume.fstype) is Kind.NETWORK:
        yield "what other machines write to it meanwhile is not held still"


def _failure(volume: Volume, creation: Creation, error: OSError, needed: int) -> CheckpointError:
    if error.errno in _FULL:
        with suppress(OSError):
            needed = needed or allocated(volume, creation)
            pack = _places(creation.vault, creation.record)[0]
            room = free(volume) + os.lstat(pack).st_blocks * 512
            if needed > room:
                return _no_space(volume, needed, room)
    return CheckpointError(f"cannot copy {_place(volume, error)}: {error.strerror}", _remedy(error))


def _no_space(volume: Volume, needed: int, room: int) -> CheckpointError:
    return CheckpointError(
        f"a copy of {volume.root} needs {shown(needed)}, {volume.mountpoint} has {shown(room)}",
        "make room, or leave large directories out with --keep",
    )


def _place(volume: Volume, error: OSError) -> str:
    name = error.filename
    if name is None:
        return volume.root
    path = os.path.join(os.fsencode(volume.root), os.fsencode(name))
    return path.decode("utf-8", "backslashreplace").replace("\n", "\\n")


def _remedy(error: OSError) -> str:
    if error.errno in (errno.EIO, errno.EUCLEAN):
        return "the disk or filesystem is damaged: look at dmesg"
    if error.errno in _FULL:
        return "`df`, `df -i` and quotas tell where there is no room"
    return "leave the path out with --keep"
