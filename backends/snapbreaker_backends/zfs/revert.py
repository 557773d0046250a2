"""While the machine runs, a dataset goes back in one step: `zfs rollback`, with what it takes away kept first.

mark → (all is compared) → copy what is there now → nobody may write → roll back → all may write again

It is marked where a first comparison has found that it is worth it. The mark is a snapshot, ahead of the second
one: nothing may be written after it, or that would vanish unseen. What is there then is kept as a dataset of
its own, a clone of the checkpoint with what differs sent into it: a rollback destroys it, and refuses where a
snapshot of it is left. Then the mounted filesystem becomes read-only, which is refused while any file is open
for writing, in whatever namespace, and it is seen whether anything was written.
Names, properties, keys, exports, mounts and children of the dataset are never touched.

How far it has come is noted in the record, ahead of each step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from snapbreaker import commands
from snapbreaker.backend import Revert, Stored, Volume
from snapbreaker.dataclass import dataclass
from snapbreaker.errors import CheckpointError, ToolError
from snapbreaker.files.entry import Change
from snapbreaker.linux.durable import read_json, sync_directory, write_json
from snapbreaker.linux.mount import set_read_only
from snapbreaker.linux.mountinfo import Mount
from snapbreaker.linux.writeback import sync_filesystem
from snapbreaker_backends.zfs import covered, datasets, names, shown, users

WORTH = 16 << 20  # bytes of content: to put back less is as fast path by path
_NOTE = "revert.json"
# No snapshots of what is kept, by zfs-auto-snapshot(8): they would keep it from being removed.
_PROPERTIES = ("canmount=off", "mountpoint=none", "readonly=on", "com.sun:auto-snapshot=false")
_NOT_WHOLE = "it goes back path by path: "


@dataclass(frozen=True, slots=True)
class _Own:
    """What things are called. ``kept`` lies beside the dataset, or within its pool's top one."""

    mount: Mount
    snapshot: str
    mark: str
    kept: str

    @classmethod
    def of(cls, volume: Volume, checkpoint: str) -> _Own:
        """Raises CheckpointError where no dataset is mounted."""
        mount = datasets.mount_of(volume)
        place = mount.source if "/" in mount.source else f"{mount.source}/{mount.source}"
        mark = f"{mount.source}@{checkpoint}.displaced"
        return cls(mount, f"{mount.source}@{checkpoint}", mark, f"{place}.{checkpoint}.displaced")


def settle(stored: Stored) -> None:
    """Bring what was cut off to an end: all may write, and nothing is left but what was taken away. Idempotent.

    Raises CheckpointError, ToolError, OSError.
    """
    noted = _noted(stored.record)
    if noted in ("", "reverted"):
        return
    own = _Own.of(stored.volume, stored.data["name"])
    _let_write(own.mount)
    if noted == "copied" and not names.exists(own.mark):  # nobody knows whether it went back
        _note(stored.record, "reverted")
        return
    _clean(stored, own)


def mark(stored: Stored, octets: int) -> Revert:
    """Remember what is there now, ahead of a comparison. Not done, without a word, where it would not be worth it.

    Raises CheckpointError, ToolError, OSError.
    """
    if octets < WORTH or _noted(stored.record) == "reverted" or not covered.is_whole(stored):
        return Revert(False)
    own = _Own.of(stored.volume, stored.data["name"])
    if _noted(stored.record):
        _clean(stored, own)
    sync_filesystem(own.mount.mountpoint)
    newer, known = _listed(own)
    if not known:
        return Revert(False)
    if newer:
        return Revert(False, f"{_NOT_WHOLE}{', '.join(newer)} would be lost, newer than the checkpoint")
    if not covered.keeps_only_vaults(stored, own.mount, own.snapshot):
        return Revert(False)
    _note(stored.record, "marked")
    names.zfs("snapshot", own.mark)
    return Revert(True)


def revert(stored: Stored, changes: Sequence[Change]) -> Revert:
    """Take it back, after ``mark`` and a comparison. Where that cannot be, all is as it was.

    Raises CheckpointError, OSError: then it is not known how far it came, and ``settle`` has to follow.
    """
    own = _Own.of(stored.volume, stored.data["name"])
    try:
        if user := users.user_of(own.mount):
            return _left(stored, own, f"{user} uses it")
        try:
            _copy(stored, own)
        except ToolError as error:
            return _left(stored, own, f"what is there now cannot be kept: {error.stderr.strip()}")
        _note(stored.record, "copied")
        try:
            set_read_only(own.mount.mountpoint, True)
        except OSError as error:
            return _left(stored, own, f"somebody has a file open for writing ({error.strerror})")
        try:
            if written := _written(own):
                return _left(stored, own, f"others write to it: {written[0]}")
            shown.forget_pages(own.mount, changes)
            names.zfs("destroy", own.mark)
            try:
                names.zfs("rollback", own.snapshot)
            except ToolError as error:  # nobody can be sure that nothing was done: all that was kept stays
                return Revert(False, f"{_NOT_WHOLE}{error.stderr.strip()}")
            shown.prove(own.mount, changes)
        finally:
            set_read_only(own.mount.mountpoint, False)
    except ToolError as error:
        raise CheckpointError(f"{own.mount.source}: {error.message}", error.hint) from error
    _note(stored.record, "reverted")
    return Revert(True, f"it went back as a whole; what was there is kept as the dataset {own.kept}")


def remove(volume: Volume, checkpoint: str, record: str) -> None:
    """The checkpoint is given up: so is what was taken away. Raises CheckpointError, OSError."""
    if not _noted(record):
        return
    own = _Own.of(volume, checkpoint)
    if _noted(record) != "reverted":
        _let_write(own.mount)
    if left := _destroy(own):
        raise CheckpointError(
            f"what {checkpoint} displaced has snapshots or clones of others: {', '.join(left)}",
            f"zfs list -rt all {own.kept}; once nobody needs them: zfs destroy -r {own.kept}",
        )
    _forget(record)


def _listed(own: _Own) -> tuple[list[str], bool]:
    """What is newer than the checkpoint, and whether that is here and the dataset such as is known."""
    columns = "name,createtxg,encryption"
    types = "filesystem,snapshot,bookmark"
    lines = names.zfs("list", "-Hpd1", "-t", types, "-o", columns, own.mount.source).splitlines()
    rows = {name: rest for name, *rest in (line.split("\t") for line in lines)}
    head, checkpoint = rows.get(own.mount.source), rows.get(own.snapshot)
    if head is None or checkpoint is None or head[1] != "off":
        return [], False
    instant = int(checkpoint[0])
    return [name for name, rest in rows.items() if ("@" in name or "#" in name) and int(rest[0]) > instant], True


def _copy(stored: Stored, own: _Own) -> None:
    """It and its snapshot have the checkpoint's marker, as each snapshot of a checkpoint has. Raises ToolError."""
    marker = f"{names.PREFIX}checkpoint={stored.data['checkpoint']}"
    options = [word for one in (*_PROPERTIES, marker) for word in ("-o", one)]
    commands.run_joined(
        ["zfs", "send", "-i", own.snapshot, own.mark],
        ["zfs", "receive", "-u", "-o", f"origin={own.snapshot}", *options, own.kept],
    )


def _written(own: _Own) -> list[str]:
    """What has changed since the mark but for access times: to read a symbolic link sets its own."""
    if names.value(own.mount.source, "written") == "0":
        return []
    return names.zfs("diff", "-H", own.mark, own.mount.source).splitlines()


def _left(stored: Stored, own: _Own, why: str) -> Revert:
    """It does not go back as a whole."""
    _let_write(own.mount)
    _clean(stored, own)
    return Revert(False, f"{_NOT_WHOLE}{why}")


def _let_write(mount: Mount) -> None:
    if os.statvfs(mount.mountpoint).f_flag & os.ST_RDONLY:
        set_read_only(mount.mountpoint, False)


def _clean(stored: Stored, own: _Own) -> None:
    _destroy(own)
    _forget(stored.record)


def _destroy(own: _Own) -> list[str]:
    """Returns what of the dataset that was kept cannot go. The snapshot that it was sent by is in it, too."""
    for snapshot in (own.mark, own.kept + own.mark.removeprefix(own.mount.source)):
        if names.exists(snapshot):
            names.zfs("destroy", snapshot)
    return names.destroy([own.kept])


def _noted(record: str) -> str:
    try:
        return str(read_json(f"{record}/{_NOTE}"))
    except FileNotFoundError:
        return ""


def _note(record: str, stage: str) -> None:
    write_json(f"{record}/{_NOTE}", stage)


def _forget(record: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(f"{record}/{_NOTE}")
        sync_directory(record)
