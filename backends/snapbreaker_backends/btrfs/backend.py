"""The btrfs backend: create, open and discard snapshots. System calls only, no program is run."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from snapbreaker.backend import Availability, Backend, Capability, Creation, Reason, Stored, Volume
from snapbreaker.errors import CheckpointError
from snapbreaker.files.diff import Proof
from snapbreaker.files.policy import Policy
from snapbreaker.files.tree import Tree
from snapbreaker.linux import btrfs
from snapbreaker.linux.inode import set_flags
from snapbreaker.linux.mount import detached_mount
from snapbreaker.linux.swaps import active_swap_files
from snapbreaker.paths import is_below, relative
from snapbreaker_backends.btrfs import exchange, inside, place
from snapbreaker_backends.btrfs.candidates import Since
from snapbreaker_backends.btrfs.enumeration import nested_subvolumes
from snapbreaker_backends.btrfs.view import SnapshotTree

_SNAPSHOTS = "snap"  # the directory of the vault that holds them, by number
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class BtrfsBackend(Backend):
    name = "btrfs"
    rank = 10
    capabilities = Capability.INSTANT | Capability.WHOLE | Capability.AT_BOOT | Capability.NEXT_ROOT

    def availability(self, volume: Volume) -> Availability:
        if volume.fstype != "btrfs":
            return Availability((Reason(f"{volume.root} lies on {volume.fstype}"),))
        reasons = list(_refusals(volume))
        return Availability(tuple(reasons), () if reasons else tuple(_notes(volume)))

    def create(self, volume: Volume, creation: Creation) -> dict[str, Any]:
        """One snapshot of the subvolume that holds the root, one of each nested in it; see ``Backend.create``."""
        snapshots = os.path.join(creation.vault, _SNAPSHOTS)
        started = time.monotonic()
        try:
            os.mkdir(snapshots, 0o700)
            with _directory(snapshots) as destination, _directory(volume.root) as root:
                # Whatever is written through a mapping after this instant gets a later ctime, since the sync
                # write-protects each dirty page: so the instant comes before the sync.
                proof = Proof.take()
                btrfs.sync(root)
                records = _snapshot_all(volume, creation, root, destination)
                inside = btrfs.path_in_subvolume(root)
        except OSError as error:
            raise _failure(volume, error) from error
        return {
            "checkpoint": creation.checkpoint,
            "bytes": 0,
            "frozen": 0.0,
            "seconds": time.monotonic() - started,
            "proof": proof.as_dict(),
            "inside": os.fsdecode(inside),
            "snapshots": records,
        }

    def open(self, stored: Stored) -> Tree:
        """The view of the snapshots; CheckpointError when one is missing or was changed since."""
        base = os.path.join(stored.vault, _SNAPSHOTS)
        inside = stored.data["inside"]
        tops: dict[bytes, int] = {}
        try:
            for number, record in enumerate(stored.data["snapshots"]):
                fd = os.open(os.path.join(base, str(number)), _DIRECTORY)
                if number == 0 and inside:
                    with _closing(fd):
                        _prove(stored.volume, fd, record)
                else:
                    tops[os.fsencode(record["path"])] = fd
                    _prove(stored.volume, fd, record)
            root = os.fsencode(os.path.join(base, "0", inside))
            skip = [os.fsencode(relative(path, stored.volume.root)) for path in stored.volume.skip]
            sealed = {os.fsencode(one["path"]) for one in stored.data["snapshots"] if one["read_only"]}
            since = {
                os.fsencode(one["path"]): Since(one["origin"], one["made"]) for one in stored.data["snapshots"]
            }
            tree = SnapshotTree(root, stored.policy, skip, tops, sealed, os.fsencode(inside), since)
        except BaseException as error:
            for fd in tops.values():
                os.close(fd)
            if isinstance(error, OSError):
                raise CheckpointError(
                    f"the snapshots of {stored.volume.root} are not whole: {error}", "this checkpoint is lost"
                ) from error
            raise
        return tree

    def discard(self, volume: Volume, vault: str, record: str) -> None:
        """Delete every snapshot that the vault holds. Idempotent."""
        exchange.remove(volume, vault)  # refused where it matters, and then nothing is deleted
        try:
            fd = os.open(os.path.join(vault, _SNAPSHOTS), _DIRECTORY)
        except FileNotFoundError:
            return
        with _closing(fd):
            for name in os.listdir(fd):
                with suppress(FileNotFoundError):
                    _delete(fd, os.fsencode(name))
        with suppress(FileNotFoundError):
            os.rmdir(os.path.join(vault, _SNAPSHOTS))

    def at_boot(self, stored: Stored) -> Availability:
        return Availability(tuple(place.refusals(stored.volume)) or tuple(inside.refusals(stored)))

    def schedule(self, stored: Stored) -> None:
        exchange.schedule(stored, os.path.join(stored.vault, _SNAPSHOTS))

    def mount_next(self, stored: Stored, point: str) -> None:
        exchange.mount_next(stored.volume, stored.vault, point)

    def call_off(self, stored: Stored) -> None:
        exchange.call_off(stored.volume, stored.vault)

    def reverted(self, stored: Stored) -> bool:
        return exchange.reverted(stored.volume, stored.vault)

    def after_boot(self, volume: Volume) -> None:
        if volume.fstype == "btrfs":
            exchange.carry_over(volume)


def _delete(directory: int, name: bytes) -> None:
    try:
        btrfs.delete_subvolume(directory, name)
    except PermissionError:  # its top is immutable or append-only, as that of the subvolume was
        with _closing(os.open(name, _DIRECTORY, dir_fd=directory)) as top:
            btrfs.set_read_only(top, False)
            set_flags(top, 0)
        btrfs.delete_subvolume(directory, name)


def _refusals(volume: Volume) -> Iterator[Reason]:
    if os.geteuid() != 0:
        yield Reason("snapshots need root", "run snapbreaker as root")
        return
    if os.statvfs(volume.mountpoint).f_flag & os.ST_RDONLY:
        yield Reason(f"{volume.mountpoint} is mounted read-only", f"mount -o remount,rw {volume.mountpoint}")
    with _directory(volume.root) as root:
        try:
            info = btrfs.subvolume_info(root)
        except OSError as error:
            yield Reason(
                f"the subvolume of {volume.root} cannot be told: {error.strerror}", "use Linux 4.18 or newer"
            )
            return
        if info.read_only:
            yield Reason(f"the subvolume of {volume.root} is read-only", "btrfs property set -f PATH ro false")
        device = os.fstat(root).st_dev
    for path, swap_device in active_swap_files():
        if swap_device == device:
            yield Reason(
                f"its subvolume holds the active swap file {path}: it cannot be snapshotted",
                f"swapoff {path}, and move it to a subvolume of its own",
            )


def _notes(volume: Volume) -> Iterator[str]:
    with _directory(volume.root) as root:
        nested = nested_subvolumes(root, _LeaveOut(volume, Policy()))
        devices = {_device(root, one.path): one.path for one in nested}
    if nested:
        yield f"{len(nested)} nested subvolumes are snapshotted one after another, not at the same instant"
    frozen = sum(one.read_only for one in nested)
    if frozen:
        yield f"{frozen} of them are read-only, maybe snapshots of another tool: --keep PATH leaves them out"
    for path, device in active_swap_files():
        if device in devices:
            holder = os.path.join(volume.root, os.fsdecode(devices[device]))
            yield f"the nested subvolume {holder} holds the active swap file {path}: --keep {holder}"


def _snapshot_all(volume: Volume, creation: Creation, root: int, destination: int) -> list[dict[str, Any]]:
    """The snapshots in the vault by number, the subvolume of the root first; what is recorded of each."""
    with _top_of_subvolume(volume, root) as top:
        btrfs.create_snapshot(top, destination, b"0", read_only=True)
    made = [(b"", btrfs.subvolume_info(root).read_only)]
    for nested in nested_subvolumes(root, _LeaveOut(volume, creation.policy)):
        source = btrfs.open_subvolume(root, nested.path, nested.id)
        if source is None:
            raise OSError(errno.ESTALE, "the subvolume was replaced meanwhile", nested.path)
        with _closing(source):
            btrfs.create_snapshot(source, destination, b"%d" % len(made), read_only=True)
        made.append((nested.path, nested.read_only))
        creation.progress("snapshot", len(made))
    return [_recorded(destination, number, *one) for number, one in enumerate(made)]


def _recorded(destination: int, number: int, path: bytes, read_only: bool) -> dict[str, Any]:
    with _closing(os.open(str(number), _DIRECTORY, dir_fd=destination)) as fd:
        info = btrfs.subvolume_info(fd)
    return {
        "path": os.fsdecode(path),
        "read_only": read_only,
        "uuid": info.uuid,
        "origin": info.parent_uuid,
        "generation": info.generation,
        "made": info.made,
    }


def _prove(volume: Volume, fd: int, record: dict[str, Any]) -> None:
    """That this is the snapshot that was made, and that nobody has changed it."""
    info = btrfs.subvolume_info(fd)
    if info.uuid != record["uuid"] or info.generation != record["generation"] or not info.read_only:
        path = os.path.join(volume.root, record["path"])
        raise CheckpointError(f"the snapshot of {path} was changed since it was made", "this checkpoint is lost")


@contextmanager
def _top_of_subvolume(volume: Volume, root: int) -> Iterator[int]:
    """The top of the subvolume that holds the root: above it, or out of sight where only a part is mounted."""
    identity = btrfs.subvolume_info(root).id
    path = volume.root
    while is_below(path, volume.mountpoint):
        with _directory(path) as fd:
            if btrfs.is_subvolume(fd) and btrfs.subvolume_info(fd).id == identity:
                yield fd
                return
        if path == "/":
            break
        path = os.path.dirname(path)
    with detached_mount("btrfs", volume.source, {"subvolid": str(identity)}) as fd:
        yield fd


class _LeaveOut:
    """Which nested subvolumes a checkpoint does not cover: kept, below another mount, or a vault's own."""

    def __init__(self, volume: Volume, policy: Policy) -> None:
        self._policy = policy
        self._skip = [relative(path, volume.root) for path in volume.skip]

    def __call__(self, path: bytes) -> bool:
        text = os.fsdecode(path)
        return (
            self._policy.keeps(path)
            or b".snapbreaker" in path.split(b"/")
            or any(is_below(text, skipped) for skipped in self._skip)
        )


def _device(root: int, path: bytes) -> int:
    return os.stat(path, dir_fd=root, follow_symlinks=False).st_dev


def _failure(volume: Volume, error: OSError) -> CheckpointError:
    what = f"cannot snapshot {volume.root}: {error}"
    if error.errno == errno.ETXTBSY:
        swaps = ", ".join(path for path, _ in active_swap_files()) or "it holds an active swap file"
        return CheckpointError(what, f"active swap: {swaps}; swapoff, or --keep the subvolume that holds it")
    if error.errno == errno.ENOSPC:
        return CheckpointError(what, "make room: btrfs filesystem usage " + volume.mountpoint)
    return CheckpointError(what)


@contextmanager
def _directory(path: str | bytes) -> Iterator[int]:
    with _closing(os.open(path, _DIRECTORY)) as fd:
        yield fd


@contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)
