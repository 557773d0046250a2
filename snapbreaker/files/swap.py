"""The second half of a restore: what lies ready is exchanged with what is live."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from snapbreaker.files import exchange, ops
from snapbreaker.files.live import LiveTree
from snapbreaker.files.locks import Locks
from snapbreaker.files.plan import Action, Plan, Step
from snapbreaker.files.remove import remove_tree
from snapbreaker.files.stage import Stage
from snapbreaker.files.staging import make_special
from snapbreaker.linux.inode import get_flags, get_project
from snapbreaker.progress import Progress

_PROJINHERIT = 0x20000000  # FS_PROJINHERIT_FL, include/uapi/linux/fs.h
_STEPS_PER_REPORT = 1000
_TRIES = 8  # a path that comes and goes while it is restored is somebody's at work


class Swap:
    """Puts every staged path in place, and what was there into its slot.

    ``touched`` are afterwards the directories in which a name changed.
    """

    def __init__(self, live: LiveTree, stage: Stage, plan: Plan, locks: Locks) -> None:
        self._live, self._stage, self._plan, self._locks = live, stage, plan, locks
        self.touched: set[bytes] = set()
        self.projects: set[bytes] = set()  # paths whose project id was changed to get them in place

    def run(self, progress: Progress) -> None:
        """Each step on its own: one that fails has its ``failure`` set, the others go on."""
        for count, step in enumerate(self._plan.steps):
            if count % _STEPS_PER_REPORT == 0:
                progress("swap", count)
            if step.action is Action.METADATA or step.failure:
                continue
            self.touched.add(step.path.rpartition(b"/")[0])
            try:
                self._swap(step)
            except OSError as error:
                step.failure = f"cannot be put in place: {error.strerror}"

    def _swap(self, step: Step) -> None:
        if step.base is not None:
            self._link_live(step, step.base)
        self._persist(step)
        new = step.change.new
        if (new is not None and new.is_dir) or (step.change.old is not None and step.change.old.is_dir):
            self._live.forget()

    def _link_live(self, step: Step, base: Step) -> None:
        if base.failure:
            raise OSError(errno.ENOENT, f"the file that it is a link of {base.failure}")
        if base.action is not Action.METADATA:
            return
        slots = self._stage.slots[step.domain]
        parent, name = self._live.open_parent(base.path)
        try:
            ops.link(parent, name, slots, step.name)
        except PermissionError:
            if not self._locks.lift(base.path):
                raise
            ops.link(*self._live.open_parent(base.path), slots, step.name)
        if os.stat(step.name, dir_fd=slots, follow_symlinks=False).st_ino != base.inode:
            ops.unlink(slots, step.name)
            raise OSError(errno.ESTALE, "the file that it is a link of changed meanwhile")

    def _persist(self, step: Step) -> None:
        """Move, and remedy what is in the way: a name that came or went, a lock, a project id."""
        present = step.change.new is not None
        for _ in range(_TRIES):
            try:
                self._move(step, present)
                return
            except OSError as error:
                code = error.errno or 0
                if code == errno.ENOENT and step.action is Action.DISPLACE:
                    return
                if code == errno.ENOENT and present:
                    present = False
                elif code == errno.EEXIST and not present:
                    present = True
                elif code == errno.EXDEV and self._cannot_inherit(step):
                    self._move_uninherited(step, present)
                    return
                elif not self._remedy(step, code):
                    raise
        raise OSError(errno.EBUSY, "somebody else keeps changing it")

    def _move(self, step: Step, present: bool) -> None:
        slots = self._stage.slots[step.domain]
        parent, name = self._live.open_parent(step.path)
        if step.action is Action.DISPLACE:
            exchange.put_away(parent, name, slots, step.name)
        elif present:
            exchange.exchange(slots, step.name, parent, name)
        else:
            exchange.put_in(slots, step.name, parent, name)

    def _move_uninherited(self, step: Step, present: bool) -> None:
        """Where the directory does not hand its project id down for the moment, which is no error (EXDEV) then.

        A crash in between leaves a difference, which is found.
        """
        parent, _ = self._live.open_parent(step.path)
        flags = get_flags(parent)
        ops.set_flags(parent, flags & ~_PROJINHERIT)
        try:
            self._move(step, present)
        finally:
            ops.set_flags(parent, flags)

    def _cannot_inherit(self, step: Step) -> bool:
        """On ZFS nothing but files and directories inherits a project id (zfs_mknode, zfs_rename)."""
        return step.path in self.projects and not (step.old.is_file or step.old.is_dir)

    def _remedy(self, step: Step, code: int) -> bool:
        if code in (errno.EPERM, errno.EROFS, errno.EACCES):
            return self._locks.lift(step.path)
        if code == errno.EXDEV and step.action is not Action.DISPLACE:
            return self._adopt_project(step)
        return False

    def _adopt_project(self, step: Step) -> bool:
        """rename(2) into a directory that hands its project id down wants a file of that very project.

        ext4_rename in fs/ext4/namei.c, xfs_rename in fs/xfs/xfs_inode.c. A file or directory gets that id for the
        moment; anything else can only inherit it, so it is made anew in a directory that hands it down too.
        """
        parent, _ = self._live.open_parent(step.path)
        project = get_project(parent)
        if not get_flags(parent) & _PROJINHERIT or step.path in self.projects:
            return False
        self.projects.add(step.path)
        slots = self._stage.slots[step.domain]
        if not (step.old.is_file or step.old.is_dir):
            return self._inherit_project(step, slots, project)
        _on_slot(slots, step, lambda fd: ops.set_project(fd, project))
        return True

    def _inherit_project(self, step: Step, slots: int, project: int) -> bool:
        remove_tree(slots, step.name)
        ops.set_project(slots, project)
        ops.set_flags(slots, _PROJINHERIT)
        try:
            make_special(step, slots, step.name)
        finally:
            ops.set_flags(slots, 0)
            ops.set_project(slots, 0)
        return True


def _on_slot(slots: int, step: Step, action: Callable[[int], None]) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(step.name, flags, dir_fd=slots)
    try:
        action(fd)
    finally:
        os.close(fd)
