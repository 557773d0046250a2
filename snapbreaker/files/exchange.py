"""Putting a staged file in the place of a live one, also on filesystems that refuse the flags of renameat2(2).

ZFS before 2.2 answers EINVAL to any flag (zpl_rename2 in module/os/linux/zfs/zpl_inode.c). There a file is
exchanged by link(2) and rename(2), so that its name always leads to one of the two. Only where one of the two is a
directory the name leads nowhere for a moment. What a process leaves that dies in the middle is told by names among
the slots: ``N.link`` is a further link of what is live, or was when slot N is free; ``N.moved`` is what was live.
``mend`` takes either to where it belongs.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from snapbreaker.files import ops
from snapbreaker.files.remove import remove_tree
from snapbreaker.linux.openat import exists_in

_LINK, _MOVED = b".link", b".moved"
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)  # of this filesystem, or of this file


def exchange(slots: int, slot: bytes, parent: int, name: bytes) -> None:
    """Put the ``slot`` in the place of the live ``name``, and the other way round; both must exist (ENOENT)."""
    try:
        ops.exchange(slots, slot, parent, name)
        return
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    staged = os.stat(slot, dir_fd=slots, follow_symlinks=False)
    live = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if (staged.st_dev, staged.st_ino) == (live.st_dev, live.st_ino):
        return
    if stat.S_ISDIR(staged.st_mode) or stat.S_ISDIR(live.st_mode):
        _exchange_by_moving(slots, slot, parent, name)
    else:
        _exchange_by_linking(slots, slot, parent, name)


def put_in(slots: int, slot: bytes, parent: int, name: bytes) -> None:
    """Give what is in the ``slot`` the live ``name``, which must be free (EEXIST)."""
    try:
        ops.rename(slots, slot, parent, name)
        return
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    if stat.S_ISDIR(os.stat(slot, dir_fd=slots, follow_symlinks=False).st_mode):
        # That the name was free is known once it is taken; a directory may be moved over an empty one.
        ops.mkdir(parent, name)
        _move_over(slots, slot, parent, name, ops.rmdir)
        return
    try:
        ops.link(slots, slot, parent, name)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(ops.create(parent, name))
        _move_over(slots, slot, parent, name, ops.unlink)
    else:
        ops.unlink(slots, slot)


def put_away(parent: int, name: bytes, slots: int, slot: bytes) -> None:
    """Move the live ``name`` into the free ``slot``."""
    try:
        ops.rename(parent, name, slots, slot)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        ops.move(parent, name, slots, slot)  # nobody but us makes anything among the slots


def mend(slots: int) -> None:
    """Finish or take back exchanges that were cut off. Idempotent."""
    for found in os.listdir(slots):
        name = os.fsencode(found)
        for ending in (_LINK, _MOVED):
            if name.endswith(ending):
                slot = name.removesuffix(ending)
                if ending == _MOVED:
                    remove_tree(slots, slot)
                if ending == _LINK and exists_in(slots, slot):
                    ops.unlink(slots, name)
                else:
                    ops.move(slots, name, slots, slot)


def _exchange_by_linking(slots: int, slot: bytes, parent: int, name: bytes) -> None:
    further = slot + _LINK
    try:
        ops.link(parent, name, slots, further)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _exchange_by_moving(slots, slot, parent, name)
        return
    try:
        ops.move(slots, slot, parent, name)
    except OSError:
        ops.unlink(slots, further)
        raise
    ops.move(slots, further, slots, slot)


def _exchange_by_moving(slots: int, slot: bytes, parent: int, name: bytes) -> None:
    moved = slot + _MOVED
    ops.move(parent, name, slots, moved)
    try:
        put_in(slots, slot, parent, name)
    except OSError:
        with suppress(OSError):
            ops.move(slots, moved, parent, name)
        raise
    ops.move(slots, moved, slots, slot)


def _move_over(slots: int, slot: bytes, parent: int, name: bytes, give_up: Callable[[int, bytes], None]) -> None:
    try:
        ops.move(slots, slot, parent, name)
    except OSError as error:
        with suppress(OSError):
            give_up(parent, name)
        if error.errno == errno.ENOTEMPTY:  # somebody else made something in it meanwhile
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from error
        raise
