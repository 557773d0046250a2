"""The names that the machine goes by: uname(2)."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Sequence

from snapbreaker.linux.libc import check, function
from snapbreaker.system.changed import Changed
from snapbreaker.system.kernel.kind import Kind, Old, Read

_DOMAIN = "/proc/sys/kernel/domainname"
_setdomainname = function("setdomainname", ctypes.c_char_p, ctypes.c_size_t)


def read() -> Read:
    with open(_DOMAIN, encoding="utf-8", errors="surrogateescape") as file:
        names = {"hostname": os.uname().nodename, "domainname": file.read().strip()}
    return {what: name for what, name in names.items() if name}, {}


def put_back(changes: Sequence[Changed], _old: Old) -> dict[str, str]:
    refused = {}
    for one in changes:
        try:
            if one.name == "hostname":
                socket.sethostname(one.was)
            else:
                name = os.fsencode(one.was)
                check(_setdomainname(name, len(name)), "setdomainname")
        except OSError as error:
            refused[one.name] = error.strerror or ""
    return refused


KIND = Kind("names", "", read, put_back)
