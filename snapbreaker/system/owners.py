"""To which unit a process belongs, read from its cgroup: systemd.slice(5), pam_systemd(8)."""

from __future__ import annotations

import os

from snapbreaker.linux.process import cgroup_of, process


def unit_of(pid: int) -> str:
    """The system's own unit that ``pid`` is in: the ``.service`` or ``.scope`` right below the slices.

    Empty when it is in none (a kernel thread, a bare cgroup, a container's), or gone. What runs below a user's
    manager belongs to ``user@UID.service``.
    """
    return unit_in(cgroup_of(pid) or "")


def unit_in(cgroup: str) -> str:
    """``/lxc.payload.c1/system.slice/nginx.service`` is a container's nginx, and no unit of this machine."""
    for part in cgroup.strip("/").split("/"):
        if not part.endswith(".slice"):
            return part if part.endswith((".service", ".scope")) else ""
    return ""


def is_session(unit: str) -> bool:
    """Whether it is somebody's login: what runs there was started by a person, and is not restarted."""
    return unit.startswith(("user@", "user-runtime-dir@")) or (
        unit.startswith("session-") and unit.endswith(".scope")
    )


def is_passing(unit: str) -> bool:
    """Whether it comes and goes with those who use the machine: logins, containers, jobs of people."""
    return is_session(unit) or unit.endswith(".scope")


def our_units() -> set[str]:
    """Those that this process and its ancestors are in: nothing may stop them."""
    found: set[str] = set()
    pid = os.getpid()
    while pid > 1:
        found.add(unit_of(pid))
        parent = process(pid)
        pid = parent.parent if parent else 0
    return found - {""}
