"""Which ports are open, and to whom they belong: proc_pid_net(5)."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

from snapbreaker.linux.process import pids
from snapbreaker.system.owners import unit_of

# TCP_ESTABLISHED, TCP_LISTEN, TCP_CLOSE: include/net/tcp_states.h
_ESTABLISHED, _LISTEN, _UNCONNECTED = "01", "0A", "07"
_TABLES = (("tcp", _LISTEN), ("tcp6", _LISTEN), ("udp", _UNCONNECTED), ("udp6", _UNCONNECTED))
_PORTS = "/proc/sys/net/ipv4/ip_local_port_range"
NO_UNIT = "a process of no unit"


def listening() -> dict[str, str]:
    """Each open port, as ``tcp 0.0.0.0:80``, with the unit (or process) that has it.

    Of UDP sockets those count whose port was asked for: what the kernel chose is a client's.
    """
    inodes = dict(_sockets())
    owners = _owners(set(inodes)) if inodes else {}
    return {name: owners.get(inode) or NO_UNIT for inode, name in inodes.items()}


def _sockets() -> Iterator[tuple[int, str]]:
    chosen = chosen_by_the_kernel()
    for protocol, wanted in _TABLES:
        for fields in _rows(f"/proc/net/{protocol}"):
            address, _, port_text = fields[1].rpartition(":")
            port = int(port_text, 16)
            if fields[3] != wanted or (protocol.startswith("udp") and port in chosen):
                continue
            yield int(fields[9]), f"{protocol.rstrip('6')} {_address(address)}:{port}"


def established() -> list[tuple[str, str]]:
    """Address here and address there of each TCP connection."""
    rows = [fields for protocol in ("tcp", "tcp6") for fields in _rows(f"/proc/net/{protocol}")]
    ends = [(fields[1], fields[2]) for fields in rows if fields[3] == _ESTABLISHED]
    return [(_end(here), _end(there)) for here, there in ends]


def _end(text: str) -> str:
    return _address(text.partition(":")[0]).strip("[]")


def _rows(path: str) -> list[list[str]]:
    try:
        with open(path, encoding="ascii") as file:
            return [line.split() for line in file.readlines()[1:]]
    except OSError:
        return []  # no IPv6


def _address(text: str) -> str:
    """The kernel prints each 32-bit word in host order."""
    words = struct.pack(f"={len(text) // 8}I", *(int(text[i : i + 8], 16) for i in range(0, len(text), 8)))
    return (
        socket.inet_ntop(socket.AF_INET, words)
        if len(words) == 4
        else f"[{socket.inet_ntop(socket.AF_INET6, words)}]"
    )


def chosen_by_the_kernel() -> range:
    try:
        with open(_PORTS, encoding="ascii") as file:
            low, high = map(int, file.read().split())
    except (OSError, ValueError):
        return range(0)
    return range(low, high + 1)


def _owners(inodes: set[int]) -> dict[int, str]:
    """The unit of the first process found for each socket; PID 1 holds those of socket units, too: it is last."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, str] = {}
    for pid in sorted(pids(), key=lambda pid: pid == 1):
        if len(found) == len(inodes):
            break
        with suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    inode = wanted.get(os.readlink(f"/proc/{pid}/fd/{name}"))
                    if inode is not None:
                        found.setdefault(inode, unit_of(pid))
    return found
