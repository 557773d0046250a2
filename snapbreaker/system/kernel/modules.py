"""Modules of the kernel: proc_modules(5), delete_module(2), modprobe(8)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

from snapbreaker import commands
from snapbreaker.errors import SnapbreakerError
from snapbreaker.linux.libc import check, function
from snapbreaker.system.changed import Changed
from snapbreaker.system.kernel import links, nftables
from snapbreaker.system.kernel.kind import Kind, Old, Read

LOADED = "/proc/modules"
_SYSFS = "/sys/module"
_STATE = "loaded"
_OURS = ("cn",)  # the process connector, by which a run is watched
# Kinds of links whose module has another name (modinfo(8), alias rtnl-link-KIND).
_KINDS = {"bond": "bonding", "gre": "ip_gre", "gretap": "ip_gre", "vlan": "8021q", "vti": "ip_vti"}
_delete_module = function("delete_module", ctypes.c_char_p, ctypes.c_uint)


def read() -> Read:
    return {name: _STATE for name, _ in _modules() if name not in _OURS}, {}


def _modules() -> Iterator[tuple[str, list[str]]]:
    """Name and the other fields: size, uses, users, state …"""
    with suppress(FileNotFoundError), open(LOADED, encoding="ascii") as file:
        for line in file:
            name, *fields = line.split()
            yield name, fields


def load(changes: Sequence[Changed], _old: Old) -> dict[str, str]:
    """Those that are gone. Their parameters are those of the machine's configuration."""
    refused = {}
    for one in changes:
        if not one.now:
            try:
                commands.run(["modprobe", "--", one.name])
            except SnapbreakerError as error:
                refused[one.name] = error.message
    return refused


def unload(changes: Sequence[Changed], _old: Old) -> dict[str, str]:
    """Those that came and that nobody uses, no device among them; the kernel loads most of them for itself."""
    came = {one.name for one in changes if not one.was}
    while True:
        free = [name for name, fields in _modules() if name in came and fields[1] == "0" and not _drives(name)]
        gone = [name for name in free if _unload(name)]
        came -= set(gone)
        if not gone:
            return {}


def _unload(name: str) -> bool:
    try:
        check(_delete_module(os.fsencode(name), os.O_NONBLOCK), "delete_module", name)
    except OSError:
        return False
    return True


def _drives(name: str) -> bool:
    """Whether a device is bound to one of its drivers, or has it for its kind: no use that the kernel counts."""
    if name == "nf_tables":
        return bool(nftables.read()[0])
    if any(name in (kind, _KINDS.get(kind)) for kind in links.kinds()):
        return True
    drivers = f"{_SYSFS}/{name}/drivers"
    with suppress(OSError):
        for driver in os.listdir(drivers):
            names = os.listdir(f"{drivers}/{driver}")
            if any(each != "module" and os.path.islink(f"{drivers}/{driver}/{each}") for each in names):
                return True
    return False


def came_by_itself(change: Changed) -> bool:
    """The kernel loads modules as they are needed, for the run or for others."""
    return not change.was


LOAD = Kind("modules", "module", read, load, came_by_itself)
UNLOAD = Kind("modules", "module", read, unload)
