"""What a sleeping process waits for, in words: the system call that it is in, and the file or socket behind it."""

from __future__ import annotations

import os
import platform
import re
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from snapbreaker.linux.process import read_whole

_SHOWN = 6  # descriptors of a poll that are named
_NUMBERS: dict[str, dict[str, tuple[int, ...]]] = {  # syscall_64.tbl; include/uapi/asm-generic/unistd.h
    "x86_64": {
        "read": (0, 17, 19, 295),
        "receive": (45, 47, 299),
        "write": (1, 18, 20, 296, 44, 46, 307),
        "accept": (43, 288),
        "connect": (42,),
        "poll": (7, 271),
        "select": (23, 270),
        "epoll": (232, 281),
        "child": (61, 247),
        "futex": (202,),
        "sleep": (35, 230),
        "fcntl": (72,),
        "flock": (73,),
        "open": (2,),
        "openat": (257,),
        "signal": (34, 128, 130),
        "sync": (74, 75),
    },
    "aarch64": {
        "read": (63, 65, 67, 69),
        "receive": (207, 212, 243),
        "write": (64, 66, 68, 70, 206, 211, 269),
        "accept": (202, 242),
        "connect": (203,),
        "poll": (73,),
        "select": (72,),
        "epoll": (22,),
        "child": (95, 260),
        "futex": (98,),
        "sleep": (101, 115),
        "fcntl": (25,),
        "flock": (32,),
        "openat": (56,),
        "signal": (133, 137),
        "sync": (82, 83),
    },
}
_CALLS = {number: name for name, numbers in _NUMBERS.get(platform.machine(), {}).items() for number in numbers}
_SETLK_WAIT = {7, 38}  # F_SETLKW, F_OFD_SETLKW: fcntl(2)
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_PLAIN = {"sleep": "a time", "child": "the end of a child", "signal": "a signal", "futex": "another thread"}


def waits_for(pid: int) -> str:
    """Empty where it waits for nothing, or that cannot be told."""
    with suppress(OSError, ValueError, struct.error):
        words = read_whole(f"/proc/{pid}/syscall").split()
        if len(words) >= 7:
            call = _CALLS.get(int(words[0]), "")
            return _told(pid, call, [int(word, 16) for word in words[1:7]])
    return ""


def _told(pid: int, call: str, arguments: list[int]) -> str:
    if call in _PLAIN:
        return _PLAIN[call]
    if call in ("poll", "select", "epoll"):
        found = _SETS[call](pid, arguments)
        names = [_name(pid, fd) for fd in found[:_SHOWN]]
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        return f"one of: {', '.join(names)}{more}" if len(names) > 1 else (names[0] if names else "a time")
    if call in ("open", "openat"):
        return f"{_text(pid, arguments[call == 'openat'])} to be opened"
    if call == "flock" or (call == "fcntl" and arguments[1] in _SETLK_WAIT):
        return f"a lock on {_name(pid, arguments[0])}"
    words = {
        "read": "input from {}",
        "receive": "data from {}",
        "write": "{} to take output",
        "accept": "a connection to {}",
        "connect": "a connection by {}",
        "sync": "{} to be written to disk",
    }
    return words[call].format(_name(pid, arguments[0])) if call in words else ""


def _name(pid: int, fd: int) -> str:
    """What a descriptor is: a path, ``the terminal /dev/pts/0``, both ends of a socket."""
    try:
        target = os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return f"descriptor {fd}"
    if target.startswith(("/dev/pts/", "/dev/tty", "/dev/console")):
        return f"the terminal {target}"
    if found := _SOCKET.fullmatch(target):
        return _socket(pid, found[1]) or target
    return target


def _socket(pid: int, inode: str) -> str:
    """From /proc/PID/net: proc_pid_net(5)."""
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        with suppress(OSError):
            for line in read_whole(f"/proc/{pid}/net/{kind}").decode("ascii").splitlines()[1:]:
                fields = line.split()
                if len(fields) > 9 and fields[9] == inode:
                    local, remote = _address(fields[1]), _address(fields[2])
                    there = f" to {remote}" if not remote.endswith(":0") else f" at {local}"
                    return f"a {kind.rstrip('6')} connection{there}"
    with suppress(OSError):
        for line in read_whole(f"/proc/{pid}/net/unix").decode("utf-8", "replace").splitlines()[1:]:
            parts = line.split(maxsplit=7)
            if len(parts) > 6 and parts[6] == inode:
                return f"the socket {parts[7]}" if len(parts) > 7 else "an unnamed Unix socket"
    return ""


def _address(text: str) -> str:
    """``0100007F:1F90`` is 127.0.0.1:8080: four octets at a time in the machine's own order."""
    host, _, port = text.partition(":")
    raw = b"".join(struct.pack("=I", int(host[at : at + 8], 16)) for at in range(0, len(host), 8))
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    return f"{socket.inet_ntop(family, raw)}:{int(port, 16)}"


def _polled(pid: int, arguments: list[int]) -> list[int]:
    """poll(2): an array of struct pollfd."""
    count = min(arguments[1], 64)
    data = _memory(pid, arguments[0], 8 * count)
    return [fd for fd, _, _ in struct.iter_unpack("=ihh", data) if fd >= 0]


def _selected(pid: int, arguments: list[int]) -> list[int]:
    """select(2): bits of what is to be read, then of what is to be written."""
    size = min(arguments[0], 1024)
    found: set[int] = set()
    for address in arguments[1:3]:
        if address:
            bits = int.from_bytes(_memory(pid, address, (size + 7) // 8), "little")
            found |= {fd for fd in range(size) if bits >> fd & 1}
    return sorted(found)


def _epolled(pid: int, arguments: list[int]) -> list[int]:
    """proc_pid_fdinfo(5): a line ``tfd:`` for each."""
    lines = read_whole(f"/proc/{pid}/fdinfo/{arguments[0]}").decode("ascii").splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("tfd:")]


_SETS: dict[str, Callable[[int, list[int]], list[int]]] = {"poll": _polled, "select": _selected, "epoll": _epolled}


def _text(pid: int, address: int) -> str:
    return os.fsdecode(_memory(pid, address, 256).partition(b"\0")[0])


def _memory(pid: int, address: int, size: int) -> bytes:
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, size, address)
    finally:
        os.close(fd)
