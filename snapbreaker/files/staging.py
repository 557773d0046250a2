"""The first half of a restore: everything that shall come is made, whole, in slots. Nothing live is changed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from snapbreaker.errors import RestoreError, SnapbreakerError
from snapbreaker.files import metadata, ops
from snapbreaker.files.entry import Entry
from snapbreaker.files.live import LiveTree
from snapbreaker.files.locks import Locks
from snapbreaker.files.plan import Action, Plan, Step, Subvolumes
from snapbreaker.files.remove import remove_tree
from snapbreaker.files.room import NO_SPACE, Room
from snapbreaker.files.stage import Stage, identity_of
from snapbreaker.files.tree import Tree
from snapbreaker.linux.openat import open_beneath
from snapbreaker.parallel import Counts, in_parallel, part, processes_for
from snapbreaker.progress import Progress

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC
_STEPS_PER_REPORT = 100


class Staging:
    """Fills the slots of a plan.

    ``parents`` are afterwards the live directories above changed paths, ``tops`` those subvolumes in whose top
    directory a place for slots was made, ``octets`` the sizes of all files staged.
    """

    def __init__(self, old: Tree, live: LiveTree, stage: Stage, plan: Plan, locks: Locks, room: Room) -> None:
        self._old, self._live, self._stage, self._plan, self._locks = old, live, stage, plan, locks
        self._room = room
        self._domains: dict[bytes, int] = {}
        self.parents: dict[bytes, Entry] = {}
        self.tops: list[bytes] = []
        self.octets = 0

    def run(self, progress: Progress) -> None:
        """Stage all steps. A step that fails has its ``failure`` set; without space all is given up.

        Raises RestoreError; then nothing in the live tree has changed.
        """
        files, links = [], []
        for step in self._plan.steps:
            if step.action is Action.METADATA:
                continue
            self._do(self._assign, step)
            if step.action is Action.LINK:
                links.append(step)
            elif step.action is Action.PLACE and step.old.is_file:
                files.append(step)
            else:
                self._do(self._stage_step, step)
        self._stage_files(files, progress)
        for step in links:
            self._do(self._stage_step, step)
        self._room.make(ops.syncfs, self._stage.fd)

    def _do(self, action: Callable[[Step], None], step: Step) -> None:
        if step.failure:
            return
        try:
            self._room.make(action, step)
        except SnapbreakerError as error:
            step.failure = f"cannot be staged: {error.message}"
        except OSError as error:
            if error.errno in NO_SPACE:
                raise RestoreError(
                    f"no space to stage {os.fsdecode(step.path)}: {error.strerror}",
                    "nothing was changed; make space on that filesystem and roll back again",
                ) from error
            step.failure = f"cannot be staged: {error.strerror}"

    def _stage_files(self, files: list[Step], progress: Progress) -> None:
        """Many regular files are staged by several processes. Those for which there was no space come last, and
        find out whether some can be made.
        """
        processes = processes_for(len(files))
        steps, octets = Counts(), Counts()

        def stage(number: int) -> tuple[list[tuple[int, str] | None], Any]:
            done: list[tuple[int, str] | None] = []
            for step in part(files, number, processes):
                if number == 0 and len(done) % _STEPS_PER_REPORT == 0:
                    progress("stage", steps.sum, octets.sum)
                done.append(self._staged_by_helper(step))
                steps.add(1)
                octets.add(step.old.size)
            return done, self._old.learned()

        for number, (done, learned) in enumerate(in_parallel(processes, stage, again=True)):
            self._old.learn(learned)
            for step, found in zip(part(files, number, processes), done, strict=True):
                if found is None:
                    self._do(self._stage_step, step)
                else:
                    step.inode, step.failure = found
        self.octets = sum(step.old.size for step in files if not step.failure)

    def _staged_by_helper(self, step: Step) -> tuple[int, str] | None:
        """The inode and why it failed; None: once more, without space or where one had begun it that died."""
        if not step.failure:
            try:
                self._stage_step(step)
            except SnapbreakerError as error:
                return 0, f"cannot be staged: {error.message}"
            except OSError as error:
                # What a process that died had begun is gone now, and the next one finds the slot free.
                if error.errno in {*NO_SPACE, errno.EEXIST}:
                    return None
                return 0, f"cannot be staged: {error.strerror}"
        return step.inode, step.failure

    def staged(self) -> list[tuple[int, int, int]]:
        """(domain, slot, identity) of all that lies ready, and of the links that are going to be made."""
        found = []
        for step in self._plan.steps:
            if step.number and step.action is not Action.DISPLACE and not step.failure:
                found.append((step.domain, step.number, step.inode))
        return found

    def give_up(self) -> None:
        """Remove all that was staged, and every trace of it in the live tree."""
        self._stage.remove(self._live.root_fd)
        for path in self.tops:
            fd = self._live.open_entry(self.parents[path])
            try:
                metadata.settle_mtime(fd, self.parents[path].mtime_ns)
            finally:
                os.close(fd)
        for path in self._locks.lifted:
            self._locks.put_back(path)

    def _assign(self, step: Step) -> None:
        step.domain = self._domain(step.path.rpartition(b"/")[0])
        step.number = self._stage.number()

    def _stage_step(self, step: Step) -> None:
        directory, name = self._stage.slots[step.domain], step.name
        try:
            if step.action is Action.PLACE:
                self._make(step, directory, name)
            elif step.action is Action.LINK and step.base is not None:
                self._link(step, step.base, directory, name)
        except OSError:
            with suppress(OSError):
                remove_tree(directory, name)
            raise

    def _make(self, step: Step, directory: int, name: bytes) -> None:
        entry = step.old
        if entry.is_dir:
            self._make_directory(step, directory, name)
        elif entry.is_file:
            step.inode = self._make_file(step, directory, name)
        else:
            make_special(step, directory, name)

    def _make_file(self, step: Step, directory: int, name: bytes) -> int:
        entry = step.old
        spare = self._old.spare_inode(entry)
        if spare is not None:
            return self._link_back(step, spare, directory, name)
        fd = ops.create(directory, name)
        try:
            metadata.prepare(fd, step.details)
            if entry.size:
                content = self._old.content(entry)
                try:
                    ops.fill(fd, content)
                finally:
                    content.close()
            return metadata.settle_new(fd, entry, step.details)
        finally:
            os.close(fd)

    def _link_back(self, step: Step, spare: tuple[int, bytes], directory: int, name: bytes) -> int:
        """The deleted or replaced file itself comes back; its metadata may have been changed before it went."""
        ops.link(*spare, directory, name)
        fd = os.open(name, _FILE, dir_fd=directory)
        try:
            metadata.settle(fd, step.old, step.details, locked=False)
            return os.fstat(fd).st_ino
        finally:
            os.close(fd)

    def _make_directory(self, step: Step, directory: int, name: bytes) -> None:
        if step.snapshot:
            assert isinstance(self._old, Subvolumes)
            source = self._old.subvolume_fd(step.path)
            if source is None:
                raise OSError(errno.ENOENT, "the snapshot of the subvolume is gone")
            try:
                ops.snapshot_subvolume(source, directory, name)
            finally:
                os.close(source)
        elif step.old.subvolume:
            ops.create_subvolume(directory, name)
        else:
            ops.mkdir(directory, name)
        step.inode = identity_of(directory, name)

    def _link(self, step: Step, base: Step, directory: int, name: bytes) -> None:
        if base.failure:
            raise OSError(errno.ENOENT, f"the file that it is a link of {base.failure}")
        step.inode = base.inode
        if base.action is Action.PLACE:
            ops.link(self._stage.slots[base.domain], base.name, directory, name)

    def _domain(self, directory: bytes) -> int:
        """The domain of what lies in ``directory``: that of the nearest subvolume above."""
        passed = []
        while (found := self._domains.get(directory)) is None:
            passed.append(directory)
            step = self._plan.by_path.get(directory)
            coming = step is not None and step.action is Action.PLACE
            entry = None if coming else self._live.lookup(directory)
            if entry is not None:
                self.parents[directory] = entry
            if step is not None and coming and step.old.subvolume:
                found = self._domain_coming(step)
                break
            if not directory or (entry is not None and entry.subvolume):
                found = self._domain_here(directory)
                break
            directory = directory.rpartition(b"/")[0]
        for path in passed:
            self._domains[path] = found
        return found

    def _domain_here(self, subvolume: bytes) -> int:
        top = self._live.root_fd
        if subvolume:
            top, _ = self._live.open_parent(subvolume + b"/x")
        elif os.fstat(top).st_dev == os.fstat(self._stage.slots[0]).st_dev:
            return 0
        self.tops.append(subvolume)
        self._locks.lift_inside(subvolume)
        return self._stage.add_domain(subvolume, top)

    def _domain_coming(self, step: Step) -> int:
        if step.failure:
            raise OSError(errno.ENOENT, f"the subvolume around it {step.failure}")
        top = os.open(step.name, _DIRECTORY | os.O_CLOEXEC, dir_fd=self._stage.slots[step.domain])
        try:
            self._clear_stubs(step, top)
            return self._stage.add_domain(step.path, top)
        finally:
            os.close(top)

    def _clear_stubs(self, around: Step, top: int) -> None:
        """In a snapshot a nested subvolume is an empty directory, which would be in the way of the real one."""
        if not around.snapshot:
            return
        for step in self._plan.steps:
            inside = step.path.startswith(around.path + b"/")
            if inside and step.action is Action.PLACE and step.old.subvolume:
                _remove_stub(top, step.path[len(around.path) + 1 :])


def _remove_stub(top: int, path: bytes) -> None:
    directory, _, name = path.rpartition(b"/")
    fd = open_beneath(top, directory, _DIRECTORY)
    try:
        with suppress(FileNotFoundError):
            ops.rmdir(fd, name)
    finally:
        os.close(fd)


def make_special(step: Step, directory: int, name: bytes) -> None:
    """A symbolic link, fifo, socket or device in a slot."""
    entry = step.old
    if entry.is_link:
        ops.symlink(step.details.target, directory, name)
    else:
        ops.mknod(directory, name, entry.mode, entry.rdev if not stat.S_ISFIFO(entry.mode) else 0)
    metadata.settle_special(directory, name, entry, step.details)
    step.inode = identity_of(directory, name)
