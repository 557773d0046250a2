"""Processes as /proc shows them: proc_pid_stat(5), proc_pid_environ(5), proc_pid_cgroup(5)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from ctypes import c_int, c_ulong
from functools import cache
from typing import NamedTuple

from snapbreaker.dataclass import dataclass
from snapbreaker.linux.libc import check, function
from snapbreaker.linux.mountinfo import read_mounts

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2), Linux 3.4
_prctl = function("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)


class Identity(NamedTuple):
    """One process for sure: a pid is used again, a pid with its start time (clock ticks since boot) is not."""

    pid: int
    start: int


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/PID/stat. ``state`` is its one letter; ``comm`` is shown with replacement characters."""

    pid: int
    comm: str
    state: str
    parent: int
    group: int
    session: int
    threads: int
    start: int

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.start)

    @property
    def dead(self) -> bool:
        """Only its exit status is left. A leader that ended before its threads is a zombie too, but alive."""
        return self.state in "ZX" and self.threads <= 1

    @property
    def stopped(self) -> bool:
        return self.state in "Tt"


def parse_stat(text: bytes) -> Process:
    """``comm`` may hold blanks, brackets and newlines: what counts is the last bracket."""
    opening, closing = text.index(b"("), text.rindex(b")")
    fields = text[closing + 2 :].split()
    return Process(
        pid=int(text[:opening]),
        comm=text[opening + 1 : closing].decode("utf-8", "replace"),
        state=fields[0].decode("ascii"),
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        threads=int(fields[17]),
        start=int(fields[19]),
    )


def process(pid: int) -> Process | None:
    """The process with this pid, or None when there is none (any more)."""
    try:
        return parse_stat(read_whole(f"/proc/{pid}/stat"))
    except (OSError, ValueError):
        return None


def processes() -> dict[int, Process]:
    """Every process that /proc shows. Not one instant: a process may fork or end meanwhile."""
    found = (process(pid) for pid in pids())
    return {one.pid: one for one in found if one is not None}


def pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())


def is_alive(identity: Identity) -> bool:
    """Whether this very process still runs."""
    found = process(identity.pid)
    return found is not None and found.start == identity.start and not found.dead


def identify(pid: int) -> Identity | None:
    found = process(pid)
    return found.identity if found else None


def has_environment(pid: int, marker: bytes) -> bool:
    """Whether the process was executed with ``NAME=value`` in its environment. False when it cannot be read."""
    try:
        return marker in read_whole(f"/proc/{pid}/environ").split(b"\0")
    except OSError:
        return False


def command_line(pid: int) -> list[str]:
    """The arguments of a process (proc_pid_cmdline(5)); empty for a kernel thread and for one that is gone."""
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as stream:
        return [os.fsdecode(word) for word in stream.read(4096).split(b"\0") if word]
    return []


def cgroup_of(pid: int) -> str | None:
    """Path in the v2 hierarchy, as this process' cgroup namespace sees it; None without v2 or without pid."""
    with suppress(OSError):
        for line in read_whole(f"/proc/{pid}/cgroup").splitlines():
            if line.startswith(b"0::"):
                return os.fsdecode(line[3:]).removesuffix(" (deleted)")
    return None


def children_of(pid: int) -> list[int]:
    """Direct children, from /proc/PID/task/TID/children where the kernel has it, else from every stat."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, read_whole(f"/proc/{pid}/task/{thread}/children").split())
    except OSError:
        return [one.pid for one in processes().values() if one.parent == pid]
    return found


@cache
def boot_id() -> str:
    """Differs after every boot: pids and start times of another boot mean nothing.

    A container has the kernel's id for all its boots: its first process tells them apart. After a soft reboot to
    another root (systemd-soft-reboot.service(8)) both are the same, but the root is another mount.
    """
    kernel = read_whole("/proc/sys/kernel/random/boot_id").decode("ascii").strip()
    first = process(1)
    if first is None:
        return kernel
    with suppress(OSError):
        roots = [mount.id for mount in read_mounts("/proc/1/mountinfo") if mount.mountpoint == "/"]
        return f"{kernel}/{first.start}/{roots[-1] if roots else 0}"
    return f"{kernel}/{first.start}"


def become_subreaper() -> None:
    """Orphaned descendants become our children instead of init's, so that they stay descendants."""
    check(_prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def die_with_parent(number: int) -> None:
    """Get a signal when the thread that forked us ends."""
    check(_prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def read_whole(path: str, directory: int | None = None) -> bytes:
    """A file of /proc or cgroupfs, whole, relative to the descriptor ``directory`` if given. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        parts = []
        while data := os.read(fd, 1 << 16):
            parts.append(data)
        return b"".join(parts)
    finally:
        os.close(fd)
