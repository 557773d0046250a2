"""cgroups of the lab's containers: below the root of the machine's cgroup2, wherever that is mounted."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.lab.errors import LabError


@cache
def base() -> Path:
    """Where cgroup2 is mounted: ``/sys/fs/cgroup``, or beside cgroup v1 hierarchies."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2":
            return Path(fields[4])
    raise LabError("no cgroup2 is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup")


def missing() -> str:
    """What keeps this machine from running containers in cgroups of their own, with the remedy."""
    try:
        directory = base()
    except LabError as error:
        return str(error)
    if not os.access(directory, os.W_OK):
        return f"{directory} cannot be written to: run the tests where cgroup2 is mounted read-write"
    return ""


def create(name: str) -> Path:
    cgroup = base() / name
    cgroup.mkdir()
    return cgroup


def named(prefix: str) -> list[Path]:
    """The lab's cgroups whose name begins with ``prefix``."""
    try:
        return sorted(base().glob(f"{prefix}*"))
    except LabError:
        return []


@contextmanager
def few_processes(name: str, most: int) -> Iterator[Path]:
    """What is started meanwhile has ``most`` processes at most, with all that it starts; yields what counts them.

    The calling process enters, so its children begin there, and leaves again.
    """
    pids = pids_hierarchy()
    cgroup = pids / name
    cgroup.mkdir()
    try:
        (cgroup / "pids.max").write_text(str(most))
        (cgroup / "cgroup.procs").write_text(str(os.getpid()))
        try:
            yield cgroup
        finally:
            (pids / "cgroup.procs").write_text(str(os.getpid()))
    finally:
        remove(cgroup)


def pids_hierarchy() -> Path:
    """cgroup v1, whose members are counted apart from those of v2 (cgroups(7)). LabError where it is not."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        kind, options = fields[fields.index("-") + 1], fields[-1].split(",")
        if kind == "cgroup" and "pids" in options:
            return Path(fields[4])
    raise LabError("the pids controller is not in a cgroup v1 hierarchy here")


def populated(cgroup: Path) -> bool:
    """Whether a process is in it or below; False when it does not exist."""
    try:
        return "populated 1" in (cgroup / "cgroup.events").read_text()
    except OSError:
        return False


def kill(cgroup: Path) -> None:
    """SIGKILL all in ``cgroup`` and below, and wait until they are gone; fine when it does not exist.

    Frozen ones too (cgroup.kill thaws nothing, but a fatal signal passes the freezer).
    """
    deadline = time.monotonic() + 20
    while populated(cgroup):
        if time.monotonic() > deadline:
            raise LabError(f"processes in {cgroup} survive SIGKILL")
        try:
            (cgroup / "cgroup.kill").write_text("1")
        except FileNotFoundError:
            return
        time.sleep(0.005)


def remove(cgroup: Path) -> None:
    """Remove an empty ``cgroup`` with all below it. LabError when one stays busy."""
    deadline = time.monotonic() + 20
    while cgroup.exists():
        try:
            for directory, _names, _files in os.walk(cgroup, topdown=False):
                os.rmdir(directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            if time.monotonic() > deadline:
                raise LabError(f"{cgroup} cannot be removed: {error}") from error
            time.sleep(0.01)
