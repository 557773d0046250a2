"""Kernel settings, /proc/sys (proc_sys(5), Documentation/admin-guide/sysctl): what can be read and written."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from contextlib import suppress

from snapbreaker.system.changed import Changed
from snapbreaker.system.kernel import links
from snapbreaker.system.kernel.kind import Kind, Old, Read

SETTINGS = "/proc/sys"
EMPTY = "(empty)"
_LARGEST = 1 << 14
_PASSES = 3  # a setting may reset others, as net.ipv4.ip_forward does, or be refused until another one is back
# Directories that are not entered: an automount point; numbers that follow the state of links and schedulers.
_CLOSED = re.compile(
    r"fs/binfmt_misc|fs/quota|kernel/(random|sched_domain|usermodehelper)|net/ipv[46]/neigh/(?!default).*"
)
# Files that change by themselves; that do something when they are written, or read; that cannot be taken back.
_APART = re.compile(
    r"fs/(aio-nr|dentry-state|file-nr|inode-nr|inode-state|xfs/stats_clear)"
    r"|kernel/(cad_pid|domainname|hostname|hung_task_warnings|ns_last_pid|(msg|sem|shm)_next_id|pty/nr|tainted)"
    r"|kernel/(kexec_load_disabled|kexec_load_limit_.*|modules_disabled)"
    r"|kernel/perf_event_max_sample_rate"  # lowered by the kernel when sampling takes too long
    r"|vm/(compact_memory|drop_caches|stat_refresh)"
    r"|net/ipv[46]/route/flush|net/ipv4/tcp_fastopen_key|net/netfilter/nf_conntrack_count"
    r"|net/ipv6/conf/(?!all|default)[^/]+/(mtu|hop_limit)|net/ipv6/conf/[^/]+/stable_secret"
)
_OF_LINK = re.compile(r"net/ipv[46]/conf/(?!all$|default$)([^/]+)")


def read() -> Read:
    """Each setting with its text; of links that come and go by themselves none."""
    found: dict[str, str] = {}
    _collect(SETTINGS, "", links.passing(), found)
    return found, {}


def _collect(directory: str, prefix: str, passing: frozenset[str], found: dict[str, str]) -> None:
    """Also what cannot be written, which ``may_be_set`` tells apart: to ask for each takes longer than to read.

    Not what is mounted read-only, as containers have settings that are not theirs. A thousand files at each start:
    nothing here is done that does not have to be.
    """
    try:
        with os.scandir(directory) as entries:
            listed = [(prefix + entry.name, entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
        read_only = os.statvfs(directory).f_flag & os.ST_RDONLY
    except OSError:
        return  # a link that has just gone
    for name, path, is_directory in listed:
        if is_directory:
            link = _OF_LINK.fullmatch(name)
            if not _CLOSED.fullmatch(name) and not (link and link[1] in passing):
                _collect(path, f"{name}/", passing, found)
        elif not (read_only or _APART.fullmatch(name)):
            try:
                found[name.replace("/", ".")] = _text(path) or EMPTY
            except OSError:  # not to be read, no value yet (EIO), or gone
                continue


def _text(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _LARGEST).decode("utf-8", "surrogateescape").rstrip("\n")
    finally:
        os.close(fd)


def may_be_set(name: str) -> bool:
    """Whether a setting that is there can be written at all: others only tell something."""
    with suppress(OSError):
        return bool(os.stat(_path(name)).st_mode & 0o200)
    return False


def put_back(changes: Sequence[Changed], _old: Old) -> dict[str, str]:
    """Write what differs, until nothing does or nothing more can be done."""
    refused: dict[str, str] = {}
    for _ in range(_PASSES):
        refused = {}
        left = [one for one in changes if one.was and one.now and _differs(one)]
        for one in left:
            try:
                _write(_path(one.name), "" if one.was == EMPTY else one.was)
            except OSError as error:
                refused[one.name] = error.strerror or ""
                if error.errno == errno.EROFS:
                    refused[one.name] = "/proc/sys is read-only here"
        if not left:
            break
    return {
        name: why for name, why in refused.items() if any(one.name == name and _differs(one) for one in changes)
    }


def _path(name: str) -> str:
    """A dot that is part of a name (a VLAN's ``eth0.5``) cannot be told from one between: see what exists."""
    directory, rest = SETTINGS, name.split(".")
    while rest:
        for count in range(1, len(rest) + 1):
            path = f"{directory}/{'.'.join(rest[:count])}"
            if os.path.isdir(path) if count < len(rest) else os.path.isfile(path):
                directory, rest = path, rest[count:]
                break
        else:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return directory


def _differs(one: Changed) -> bool:
    with suppress(OSError):
        return (_text(_path(one.name)) or EMPTY) != one.was
    return True


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(fd, os.fsencode(text + "\n"))
    finally:
        os.close(fd)


KIND = Kind("sysctl", "sysctl", read, put_back)
