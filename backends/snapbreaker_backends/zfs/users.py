"""Who has a dataset in use: it cannot go back as a whole under their feet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from glob import glob

from snapbreaker.linux.mountinfo import Mount, read_mounts
from snapbreaker.linux.process import pids, process, read_whole
from snapbreaker.linux.served import served_to
from snapbreaker.paths import is_below

_EXPORTS = "/var/lib/nfs/etab"  # exportfs(8)
_LOOPS = "/sys/block/loop*/loop/backing_file"
_OVERLAID = ("lowerdir=", "upperdir=", "workdir=")


def user_of(mount: Mount) -> str:
    """One of those who use what is mounted there, ourselves included: in words, empty where nobody is found.

    Seen are directories, programs, descriptors and mappings of all processes that /proc shows, mounts of parts of
    it in any namespace that a process has, and what the kernel lets others into by itself. Who comes a moment
    later is not; nor is who has its top directory only: that is the same before and after. Raises OSError.
    """
    top = os.stat(mount.mountpoint)
    namespaces = {os.stat("/proc/self/ns/mnt").st_ino: "/proc/self/mountinfo"}
    for pid in pids():
        with suppress(OSError):
            namespaces.setdefault(os.stat(f"/proc/{pid}/ns/mnt").st_ino, f"/proc/{pid}/mountinfo")
            if _is_in(pid, top, mount.device):
                found = process(pid)
                return f"{found.comm if found else 'a process'} (pid {pid})"
    for path in namespaces.values():
        with suppress(OSError):  # it has ended meanwhile
            for other in read_mounts(path):
                if _shows_part(other, mount):
                    return f"the mount {other.mountpoint}"
    return next(_kernel_users(mount.mountpoint), "")


def _is_in(pid: int, top: os.stat_result, number: str) -> bool:
    served = served_to(pid)
    for link in _links(pid):
        with suppress(OSError):
            text = os.readlink(link)
            if text.startswith(b"/") and not served.holds(text):
                facts = os.stat(link)
                if facts.st_dev == top.st_dev and facts.st_ino != top.st_ino:
                    return True
    major, _, minor = number.partition(":")
    mapped = b" %02x:%02x " % (int(major), int(minor))  # proc_pid_maps(5)
    return mapped in read_whole(f"/proc/{pid}/maps")


def _links(pid: int) -> Iterator[bytes]:
    base = b"/proc/%d" % pid
    yield from (base + name for name in (b"/cwd", b"/root", b"/exe"))
    for task in os.listdir(base + b"/task"):
        with suppress(OSError):
            directory = base + b"/task/" + task + b"/fd/"
            yield from (directory + name for name in os.listdir(directory))


def _shows_part(other: Mount, mount: Mount) -> bool:
    """Whether a directory of it is mounted elsewhere, or an overlay is made of some."""
    if other.fstype == "overlay":
        options = [option.partition("=") for option in other.super_options.split(",")]
        places = [path for key, _, text in options if f"{key}=" in _OVERLAID for path in text.split(":")]
        return any(is_below(place, mount.mountpoint) for place in places)
    return other.device == mount.device and other.root != "/"


def _kernel_users(point: str) -> Iterator[str]:
    for path in glob(_LOOPS):
        with suppress(OSError), open(path, encoding="utf-8", errors="surrogateescape") as file:
            if is_below(file.read().strip(), point):
                yield f"the loop device {path.split('/')[3]}"
    with suppress(FileNotFoundError), open(_EXPORTS, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            path = line.split()[0] if line.strip() else ""
            if path.startswith("/") and (is_below(path, point) or is_below(point, path)):
                yield f"the NFS export {path}"
