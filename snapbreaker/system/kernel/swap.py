"""Swap areas: proc_swaps(5), swapon(2). What the run has turned on goes off before files go back: a file that is
swapped to can be neither removed nor replaced.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Sequence

from snapbreaker.linux.libc import check, function
from snapbreaker.system.changed import Changed
from snapbreaker.system.kernel.kind import Kind, Old, Read

AREAS = "/proc/swaps"
_PREFER, _PRIORITY = 0x8000, 0x7FFF
_DELETED = " (deleted)"
_swapon = function("swapon", ctypes.c_char_p, ctypes.c_int)
_swapoff = function("swapoff", ctypes.c_char_p)
# What somebody has asked for; below zero the kernel counts areas down as they come.
_STATE = re.compile(r"(?:file|partition)(?:, priority (\d+))?")


def read() -> Read:
    """By path what it is, with its priority where that was asked for."""
    try:
        with open(AREAS, "rb") as file:
            lines = file.read().splitlines()[1:]
    except FileNotFoundError:
        return {}, {}
    found = {}
    for path, kind, *_, priority in (line.split() for line in lines):
        words = kind.decode("ascii") + (f", priority {int(priority)}" if int(priority) >= 0 else "")
        found[os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), path))] = words
    return found, {}


def turn_off(changes: Sequence[Changed]) -> dict[str, str]:
    """What was not on, or in another way. No program is needed, and no file but the area itself."""
    refused = {}
    for one in changes:
        if one.now:
            try:
                check(_swapoff(os.fsencode(one.name)), "swapoff", one.name)
            except OSError as error:
                deleted = one.name.endswith(_DELETED)
                refused[one.name] = "its file has no name any more" if deleted else error.strerror or ""
    return refused


def put_back(changes: Sequence[Changed], _old: Old) -> dict[str, str]:
    refused = turn_off(changes)
    for one in changes:
        match = _STATE.fullmatch(one.was)
        if match and one.name not in refused:
            flags = _PREFER | (int(match[1]) & _PRIORITY) if match[1] else 0
            try:
                check(_swapon(os.fsencode(one.name), flags), "swapon", one.name)
            except OSError as error:
                refused[one.name] = error.strerror or ""
    return refused


KIND = Kind("swap", "swap on", read, put_back)
