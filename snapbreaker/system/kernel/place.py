"""Where this process is: is what it sees of the kernel the machine's?"""

from __future__ import annotations

import os

_NAMESPACES = ("net", "uts")
_CONTAINER = ("/run/systemd/container", "/.dockerenv", "/run/.containerenv")


def here() -> bool:
    """Whether it sees the same network, name and root as the machine's first process: not in a chroot, or in a
    namespace of its own, where the kernel's state is not what the scope is about. Needs root.
    """
    try:
        own, first = ([os.readlink(f"/proc/{who}/ns/{name}") for name in _NAMESPACES] for who in ("self", "1"))
        return own == first and os.path.samefile("/proc/1/root", "/")
    except OSError:
        return False


def is_shared() -> bool:
    """Whether the machine is a container: modules and swap are its host's, and its network comes by a veth."""
    return any(map(os.path.exists, _CONTAINER))
