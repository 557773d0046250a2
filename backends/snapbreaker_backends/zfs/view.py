"""The files as a snapshot shows them, by a mount that nobody sees.

``.zfs/snapshot/NAME`` would do in the first mount namespace only, by a program of the live system (mount.zfs), and
is unmounted after a while (zfs_expire_snapshot).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress

from snapbreaker.errors import CheckpointError
from snapbreaker.files.mounted import MountedTree
from snapbreaker.files.policy import Policy
from snapbreaker.linux.mount import detached_mount
from snapbreaker.linux.openat import open_beneath

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def identity_of(snapshot: str) -> int:
    """What no other snapshot has, even one that was made under the same name. Raises OSError.

    zfs_statvfs: f_fsid is the guid of the object set.
    """
    with detached_mount("zfs", snapshot, {}, ["ro"]) as fd:
        return os.fstatvfs(fd).f_fsid


def open_snapshot(
    names: Sequence[str], identity: int, inside: str, policy: Policy, skip: Collection[bytes]
) -> MountedTree:
    """The directory ``inside`` of a snapshot, which has one of these names.

    Raises CheckpointError when it is gone, or another one.
    """
    *others, snapshot = reversed(names)
    for other in others:
        with suppress(CheckpointError):
            return open_snapshot([other], identity, inside, policy, skip)
    with ExitStack() as stack:
        try:
            top = stack.enter_context(detached_mount("zfs", snapshot, {}, ["ro"]))
            if os.fstatvfs(top).f_fsid != identity:
                raise CheckpointError(f"{snapshot} is another snapshot now", "this checkpoint is lost")
            root = open_beneath(top, os.fsencode(inside), _DIRECTORY) if inside else os.dup(top)
        except OSError as error:
            gone = error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO)
            why = "was destroyed" if gone else f"cannot be read: {error.strerror}"
            raise CheckpointError(f"the snapshot {snapshot} {why}", "this checkpoint is lost") from error
        stack.callback(os.close, root)
        return MountedTree(stack.pop_all(), root, policy, skip)
