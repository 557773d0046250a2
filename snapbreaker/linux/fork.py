"""Starting a process inside a cgroup: clone3(2) with CLONE_INTO_CGROUP (Linux 5.7)."""

from __future__ import annotations

import ctypes
import signal

from snapbreaker.linux.libc import system_call_number

_CLONE_INTO_CGROUP = 0x2_0000_0000
_NUMBER = system_call_number("clone3")
_syscall = ctypes.PyDLL(None).syscall  # holds the interpreter's lock, which the child must own
_syscall.argtypes = [ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t]
_syscall.restype = ctypes.c_long
_before, _in_parent, _in_child = (
    getattr(ctypes.pythonapi, f"PyOS_{name}") for name in ("BeforeFork", "AfterFork_Parent", "AfterFork_Child")
)


class _Arguments(ctypes.Structure):
    """struct clone_args of linux/sched.h."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("unused", ctypes.c_uint64 * 3),  # pidfd, child_tid, parent_tid
        ("exit_signal", ctypes.c_uint64),
        ("unused_too", ctypes.c_uint64 * 5),  # stack, stack_size, tls, set_tid, set_tid_size
        ("cgroup", ctypes.c_uint64),
    )


def fork_into(cgroup: int) -> int | None:
    """As ``os.fork``, the child being in the cgroup (a descriptor of its directory) from its first instant.

    None where the kernel or a sandbox does not have that: fork, and write to cgroup.procs. That waits until every
    processor has taken note (RCU), 10 ms on an idle machine. There must be no other threads, and the child shall
    do no more than execute a program: the C library was not told of it.
    """
    if _NUMBER is None:
        return None
    arguments = _Arguments(flags=_CLONE_INTO_CGROUP, exit_signal=signal.SIGCHLD, cgroup=cgroup)
    _before()
    pid = _syscall(_NUMBER, ctypes.byref(arguments), ctypes.sizeof(arguments))
    if pid == 0:
        _in_child()
        return 0
    _in_parent()
    return int(pid) if pid > 0 else None
