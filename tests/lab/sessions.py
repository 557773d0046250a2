"""Where a test session keeps its images and mounts, and the removal of what dead sessions left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.lab import cgroups

PREFIX = "snapbreaker-lab-"
MNT_DETACH = 2
_umount2 = ctypes.CDLL(None, use_errno=True).umount2
_umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]


def home() -> Path:
    """The directory that holds all sessions: memory when there is enough of it, since images are written often."""
    memory = os.statvfs("/dev/shm") if os.path.isdir("/dev/shm") else None
    if memory and memory.f_bavail * memory.f_frsize > 4 << 30:
        return Path("/dev/shm")
    return Path("/var/tmp")


def start_time(pid: int) -> str | None:
    """The 22nd field of proc_pid_stat(5), which tells a process from a later one with the same pid."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()[19]


def open_session(base: Path | None = None) -> Path:
    """Make this process's directory, named by pid and start time, after sweeping those of dead processes.

    ``base`` is ``/dev/shm`` or ``/var/tmp``; None: ``home()``.
    """
    sweep()
    directory = (base or home()) / f"{PREFIX}{os.getpid()}-{start_time(os.getpid())}"
    directory.mkdir(mode=0o700)
    return directory


def sweep() -> list[Path]:
    """Kill, unmount, detach and remove whatever sessions left whose process is gone. Returns their directories."""
    for cgroup in cgroups.named(PREFIX):
        if _is_dead(cgroup.name):
            _remove_cgroup(cgroup)
    dead = []
    for base in (Path("/dev/shm"), Path("/var/tmp")):
        for directory in base.glob(PREFIX + "*"):
            if _is_dead(directory.name):
                close_session(directory)
                dead.append(directory)
    return dead


def close_session(directory: Path) -> None:
    # Containers first: they hold the mounts. Nothing else has a cgroup of that name.
    for cgroup in cgroups.named(directory.name + "."):
        _remove_cgroup(cgroup)
    for mountpoint in mounts_below(directory):
        unmount(mountpoint)
    for image in directory.glob("*.img"):
        detach(image)
    with contextlib.suppress(FileNotFoundError):  # another session sweeps the same one
        shutil.rmtree(directory)


def _is_dead(name: str) -> bool:
    """Whether the process is gone whose session this is, by the name of its directory or of a cgroup of it."""
    pid, _, started = name.partition(".")[0].removeprefix(PREFIX).partition("-")
    return pid.isdigit() and start_time(int(pid)) != started


def _remove_cgroup(cgroup: Path) -> None:
    cgroups.kill(cgroup)
    cgroups.remove(cgroup)


def mounts_below(directory: Path) -> list[str]:
    """Mount points at or below ``directory``, innermost first."""
    found = []
    prefix = os.fsencode(directory)
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        where = line.split()[4].replace(b"\\040", b" ").replace(b"\\012", b"\n").replace(b"\\134", b"\\")
        if where == prefix or where.startswith(prefix + b"/"):
            found.append(os.fsdecode(where))
    return found[::-1]


def unmount(mountpoint: str) -> list[str]:
    """Unmount for certain. Processes that still use the filesystem are killed and returned, one line each.

    A test's filesystem is private to it, so whatever holds it open was started by that test.
    """
    killed: list[str] = []
    for attempt in range(40):
        if _umount2(os.fsencode(mountpoint), 0) == 0:
            return killed
        for pid, what in users(mountpoint):
            if (told := f"{pid} ({what})") not in killed:  # it may take a while to die
                killed.append(told)
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005 * (attempt + 1))
    _umount2(os.fsencode(mountpoint), MNT_DETACH)
    return [*killed, f"{mountpoint} is still busy: detached lazily"]


def users(mountpoint: str) -> list[tuple[int, str]]:
    """Processes other than this one with a root, working directory, program or descriptor in the mount."""
    device = os.stat(mountpoint).st_dev
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        if pid == os.getpid():
            continue
        places = [f"/proc/{pid}/{name}" for name in ("cwd", "root", "exe")]
        try:
            places += [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if any(_device(place) == device for place in places):
            found.append((pid, command.strip()))
    return found


def _device(place: str) -> int | None:
    try:
        return os.stat(place).st_dev
    except OSError:
        return None


def detach(image: Path) -> None:
    """Detach the loop devices of ``image`` that a crash between losetup and mount left attached."""
    listing = subprocess.run(["losetup", "-n", "-O", "NAME", "-j", image], capture_output=True, text=True)
    for device in listing.stdout.split():
        subprocess.run(["losetup", "-d", device], capture_output=True)
