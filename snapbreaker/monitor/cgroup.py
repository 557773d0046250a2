"""One cgroup (v2) of our own: made, frozen, killed and removed.

cgroups(7), Documentation/admin-guide/cgroup-v2.rst. The directory is held open, so everything works when the mount
below it is gone.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import suppress

from snapbreaker.dataclass import dataclass
from snapbreaker.linux.mountinfo import read_mounts
from snapbreaker.linux.process import cgroup_of, read_whole
from snapbreaker.linux.sched import Scheduling, put_back, put_first

_REFUSED = {errno.EPERM, errno.EACCES, errno.EROFS, errno.EBUSY, errno.ENOENT, errno.EOPNOTSUPP, errno.EAGAIN}
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_POLL = 0.0001  # s; cgroup.events wakes poll(2) through a kernel worker, which is late on a busy machine
_SLOW_POLL = 0.002
PROMPT = 0.002  # s in which a machine that is not busy freezes or ends anything


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where cgroup v2 is mounted: ``mountpoint`` shows the cgroup ``root`` of our cgroup namespace."""

    mountpoint: str
    root: str

    @classmethod
    def find(cls) -> Hierarchy | None:
        """From /proc/self/mountinfo; hybrid hosts have it at /sys/fs/cgroup/unified. None without v2."""
        for mount in read_mounts():
            if mount.fstype == "cgroup2":
                return cls(mount.mountpoint, mount.root)
        return None

    def directory(self, cgroup: str) -> str | None:
        """The directory of a cgroup as /proc/PID/cgroup names it; None when the mount does not show it."""
        if ".." in cgroup.split("/"):
            return None
        prefix = self.root.rstrip("/")
        if cgroup != self.root and not cgroup.startswith(prefix + "/"):
            return None
        return os.path.join(self.mountpoint, cgroup[len(prefix) :].strip("/")).rstrip("/")

    def name(self, directory: str) -> str:
        """The cgroup of a directory below the mount point, as /proc/PID/cgroup names it: undoes ``directory``."""
        return self.root.rstrip("/") + "/" + directory.removeprefix(self.mountpoint).strip("/")


class Cgroup:
    """A cgroup and all those below it."""

    def __init__(self, path: str, fd: int) -> None:
        self.path, self.fd = path, fd
        self._hurried: dict[int, Scheduling] = {}
        self.id = os.fstat(fd).st_ino
        """Grows with every cgroup that is made (kernfs ids), so a larger one is younger."""

    @classmethod
    def create(cls, name: str) -> Cgroup | None:
        """A child of our own cgroup, or of the hierarchy's root where that is refused; None where both are."""
        for path in cls._places(name):
            try:
                os.mkdir(path, 0o755)
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
            else:
                return cls(path, os.open(path, _OPEN_DIRECTORY))
        return None

    @classmethod
    def clear(cls, name: str) -> None:
        """Remove an empty one that ``create`` made for somebody who died before he could note it."""
        for path in cls._places(name):
            with suppress(OSError):
                os.rmdir(path)

    @staticmethod
    def _places(name: str) -> list[str]:
        hierarchy = Hierarchy.find()
        if hierarchy is None:
            return []
        own = cgroup_of(os.getpid())
        parents = (hierarchy.directory(own) if own else None, hierarchy.mountpoint)
        return [os.path.join(parent, name) for parent in parents if parent is not None]

    @classmethod
    def reopen(cls, path: str, cgroup_id: int) -> Cgroup | None:
        """The cgroup that had this path and id; None when it is gone, also when another has its name now."""
        try:
            found = cls(path, os.open(path, _OPEN_DIRECTORY))
        except OSError:
            return None
        if found.id == cgroup_id:
            return found
        found.close()
        return None

    def close(self) -> None:
        os.close(self.fd)
        self.fd = -1

    def open_procs(self) -> int:
        """A descriptor of cgroup.procs; a process that writes ``0`` to it enters."""
        return os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self.fd)

    def pids(self) -> set[int]:
        """Every process in it or below. A threaded cgroup names none: its domain above does."""
        found: set[int] = set()
        for directory in self._walk():
            with suppress(OSError):
                found.update(map(int, read_whole("cgroup.procs", directory).split()))
        return found

    def freeze(self, timeout: float) -> bool:
        """Freeze all tasks; whether they are, at most ``timeout`` seconds later. A new child is frozen too."""
        if not self._write("cgroup.freeze", b"1"):
            return False
        if self._wait(b"frozen 1", min(timeout, PROMPT)):
            return True
        self.hurry()
        return self._wait(b"frozen 1", timeout - PROMPT)

    def thaw(self) -> None:
        for before in self._hurried.values():
            put_back(before)
        self._hurried.clear()
        self._write("cgroup.freeze", b"0")

    def hurry(self) -> None:
        """A task freezes, and dies, only once it has a processor: let these have one before all other work.

        With 500 busy processes on two busy processors all were dead after 0.15 s instead of 1.2 s.
        """
        for directory in self._walk():
            with suppress(OSError):
                for thread in map(int, read_whole("cgroup.threads", directory).split()):
                    if thread not in self._hurried and (before := put_first(thread)):
                        self._hurried[thread] = before

    def kill(self) -> bool:
        """SIGKILL to every process at once, also frozen ones and those forking now. False before Linux 5.14."""
        return self._write("cgroup.kill", b"1")

    def wait_empty(self, timeout: float) -> bool:
        """Whether no process is left in it or below, at most ``timeout`` seconds later."""
        return self._wait(b"populated 0", timeout)

    def move_members(self) -> bool:
        """Move every process to the parent cgroup, until none is left; whether that was possible."""
        try:
            target = os.open("../cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError:
            return False
        try:
            for _ in range(100):
                members = self.pids()
                for pid in members:
                    with suppress(ProcessLookupError):
                        os.write(target, b"%d" % pid)
                if not members:
                    return True
        except OSError:
            return False
        finally:
            os.close(target)
        return False

    def remove(self) -> bool:
        """Remove it and all below it; False while a process is left in one of them. Idempotent."""
        if self.fd < 0:
            return True
        try:
            self._remove_below(self.fd)
            if os.stat(self.path).st_ino == self.id:  # else someone removed it, and the name is another's
                os.rmdir(self.path)
        except FileNotFoundError:
            pass
        except OSError:
            return False
        self.close()
        return True

    def _remove_below(self, directory: int) -> None:
        for name in _subdirectories(directory):
            with suppress(FileNotFoundError):
                child = os.open(name, _OPEN_DIRECTORY, dir_fd=directory)
                try:
                    self._remove_below(child)
                finally:
                    os.close(child)
                os.rmdir(name, dir_fd=directory)

    def _walk(self) -> Iterator[int]:
        """Descriptors of this directory and those below, each open until the next one."""
        yield self.fd
        waiting = [(self.fd, name) for name in _subdirectories(self.fd)]
        kept: list[int] = []
        try:
            while waiting:
                parent, name = waiting.pop()
                with suppress(FileNotFoundError):
                    child = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
                    kept.append(child)
                    waiting += [(child, below) for below in _subdirectories(child)]
                    yield child
        finally:
            for child in kept:
                os.close(child)

    def _write(self, name: str, value: bytes) -> bool:
        try:
            fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError:
            return False
        try:
            os.write(fd, value)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def _wait(self, event: bytes, timeout: float) -> bool:
        """Read cgroup.events until it has the line ``event``."""
        try:
            fd = os.open("cgroup.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError:
            return event == b"populated 0"
        started = time.monotonic()
        try:
            while True:
                if event in os.pread(fd, 256, 0).split(b"\n"):
                    return True
                waited = time.monotonic() - started
                if waited >= timeout:
                    return False
                time.sleep(_POLL if waited < 0.02 else _SLOW_POLL)
        except OSError:
            return event == b"populated 0"  # ENODEV: it was removed
        finally:
            os.close(fd)


def _subdirectories(directory: int) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
