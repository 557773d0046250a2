"""Every fork on the machine as it happens: the process events connector, <linux/cn_proc.h>, <linux/connector.h>.

It wants CAP_NET_ADMIN and the first user, pid and network namespace (drivers/connector/cn_proc.c); the kernels of
Debian and Ubuntu have it (CONFIG_PROC_EVENTS). Elsewhere no event ever comes.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from typing import NamedTuple

NETLINK_CONNECTOR = 11
CN_IDX_PROC, CN_VAL_PROC = 1, 1
PROC_CN_MCAST_LISTEN, PROC_CN_MCAST_IGNORE = 1, 2
PROC_EVENT_FORK = 1

_SO_RCVBUFFORCE, _SO_ATTACH_FILTER = 33, 26  # <asm-generic/socket.h>
_BUFFER = 8 << 20  # bytes; the kernel counts almost 1 kB an event
_NLMSG_DONE = 3
_NLMSGHDR = struct.Struct("=IHHII")  # len, type, flags, seq, pid
_CN_MSG = struct.Struct("=IIIIHH")  # idx, val, seq, ack, len, flags
_OPERATION = struct.Struct("=I")
# what, cpu, timestamp_ns; parent pid and tgid, child pid and tgid
_FORK = struct.Struct("=IIQiiii")
_WHAT_OFFSET = _NLMSGHDR.size + _CN_MSG.size
_SOCK_FILTER = struct.Struct("=HBBI")  # code, jt, jf, k


class Fork(NamedTuple):
    """A new process (threads are left out). ``time``: CLOCK_MONOTONIC, ns. Pids of the first pid namespace."""

    parent: int
    child: int
    time: int


class ForkEvents:
    """A socket that collects forks until they are taken. Raises OSError where it cannot be made."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, NETLINK_CONNECTOR
        )
        try:
            self._filter_forks()
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            self._socket.bind((0, CN_IDX_PROC))
            self._say(PROC_CN_MCAST_LISTEN)
        except OSError:
            self._socket.close()
            raise

    def take(self) -> list[Fork]:
        """Those since the last call, in order. Where they were too many (ENOBUFS) some are missing."""
        found: list[Fork] = []
        while True:
            try:
                data = self._socket.recv(4096)
            except BlockingIOError:
                return found
            except OSError:
                continue  # ENOBUFS is said once, and what fitted is still there
            if (fork := parse_fork(data)) is not None:
                found.append(fork)

    def close(self) -> None:
        """The kernel before 6.6 counts listeners by what they say, not by their sockets."""
        try:
            self._say(PROC_CN_MCAST_IGNORE)
        finally:
            self._socket.close()

    def _say(self, operation: int) -> None:
        body = _CN_MSG.pack(CN_IDX_PROC, CN_VAL_PROC, 0, 0, _OPERATION.size, 0) + _OPERATION.pack(operation)
        self._socket.send(_NLMSGHDR.pack(_NLMSGHDR.size + len(body), _NLMSG_DONE, 0, 0, os.getpid()) + body)

    def _filter_forks(self) -> None:
        """Have the kernel drop every other event: socket(7), SO_ATTACH_FILTER; <linux/bpf_common.h>."""
        fork = int.from_bytes(_OPERATION.pack(PROC_EVENT_FORK), "big")  # a load is in network order
        program = b"".join(
            _SOCK_FILTER.pack(*instruction)
            for instruction in (
                (0x20, 0, 0, _WHAT_OFFSET),  # BPF_LD | BPF_W | BPF_ABS
                (0x15, 0, 1, fork),  # BPF_JMP | BPF_JEQ | BPF_K
                (0x06, 0, 0, 0xFFFFFFFF),  # BPF_RET | BPF_K: all of it
                (0x06, 0, 0, 0),
            )
        )
        held = ctypes.create_string_buffer(program, len(program))
        fprog = struct.pack("@HP", len(program) // _SOCK_FILTER.size, ctypes.addressof(held))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


def parse_fork(data: bytes) -> Fork | None:
    """One message; None when it is not about a new process."""
    if len(data) < _WHAT_OFFSET + _FORK.size:
        return None
    what, _, time, _, parent, child, child_process = _FORK.unpack_from(data, _WHAT_OFFSET)
    if what != PROC_EVENT_FORK or child != child_process:
        return None
    return Fork(parent, child, time)
